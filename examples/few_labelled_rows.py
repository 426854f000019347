"""Learn ten classes from five examples of each, and see what the time of the flow has to do with it.

A linear classifier starts from zero and moves downhill on its training loss. Stopped early it is cautious, stopped late
it fits every example. This prints the accuracy on other digits at several times, at the time that a cross-validation
along one path chooses, and of logistic regression with a cross-validated penalty.

Run:  python examples/few_labelled_rows.py
"""

import warnings

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split

from comln import GradientFlowClassifier, GradientFlowClassifierCV


def main():
    """Print a line for each time, for the chosen one, and for logistic regression."""
    images, digits = load_digits(return_X_y=True)
    few, many, few_digits, many_digits = train_test_split(
        images, digits, train_size=50, stratify=digits, random_state=0
    )
    for horizon in (1.0, 10.0, 100.0, 1000.0):
        classifier = GradientFlowClassifier(horizon=horizon).fit(few, few_digits)
        print(f"T = {horizon:6.0f}           accuracy {classifier.score(many, many_digits):.3f}")
    chosen = GradientFlowClassifierCV().fit(few, few_digits)
    print(f"T = {chosen.horizon_:6.0f}, chosen   accuracy {chosen.score(many, many_digits):.3f}")
    with warnings.catch_warnings():
        # It takes thousands of iterations on raw pixels, and of its changing defaults it warns.
        warnings.simplefilter("ignore")
        other = LogisticRegressionCV().fit(few, few_digits)
    print(f"logistic regression  accuracy {other.score(many, many_digits):.3f}")


if __name__ == "__main__":
    main()
