"""The comparison report: tables out of MLflow, statistics, figures, and the files that hold them."""
