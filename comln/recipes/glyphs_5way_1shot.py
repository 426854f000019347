"""5-way 1-shot tasks on glyphs: unseen characters of unseen scripts, support and query in different typefaces.

Run:     comln train glyphs-5way-1shot
"""

__all__ = ["COST", "EXPECTED", "EXPERIMENT"]

from comln.data.sampling import EpisodeShape
from comln.recipes.experiment import Experiment

EXPERIMENT = Experiment(
    name="glyphs-5way-1shot",
    train=EpisodeShape(ways=5, shots=1, queries=15),
    test=EpisodeShape(ways=5, shots=1, queries=15),
)
