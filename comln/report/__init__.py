"""What people look at after a run: figures, and one self-contained page."""
