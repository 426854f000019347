"""scikit-learn's own battery, over all estimators."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from comln.estimators import GradientFlowClassifier, GradientFlowClassifierCV, GradientFlowRegressor


@parametrize_with_checks([GradientFlowClassifier(), GradientFlowClassifierCV(cv=3), GradientFlowRegressor()])
def test_estimator_keeps_the_contract_of_scikit_learn(estimator, check):
    check(estimator)
