"""scikit-learn's own battery, over all estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from comln.estimators import GradientFlowClassifier, GradientFlowClassifierCV, GradientFlowRegressor


@parametrize_with_checks([GradientFlowRegressor()])
def test_regressor_keeps_the_contract_of_scikit_learn(estimator, check, without_type_hook):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([GradientFlowClassifier(), GradientFlowClassifierCV(cv=3)])
def test_classifier_keeps_the_contract_of_scikit_learn(estimator, check, without_type_hook):
    check(estimator)
