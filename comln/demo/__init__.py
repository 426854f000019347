"""The live page of a run: its server, what it computes, and in `page/` the page itself."""
