"""The command line: what users type, what they read, and how commands end."""
