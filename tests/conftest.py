"""What all tests share."""

import gc

import keras
import pytest
import tf_keras


@pytest.fixture(autouse=True, scope="module")
def _free_the_models_of_a_module():
    """Frees them bit by bit: in one go it takes Python up to a minute."""
    yield
    keras.backend.clear_session()
    tf_keras.backend.clear_session()
    gc.collect()
