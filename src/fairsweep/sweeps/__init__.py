"""Many runs as one: arms and their spaces, searches, halving, and the sweep that carries them out."""
