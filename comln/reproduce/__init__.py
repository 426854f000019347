"""The paper's results again, and what it takes to measure them."""
