"""The page about a run, or about the runs of a folder: one HTML file without scripts, and a picture."""
