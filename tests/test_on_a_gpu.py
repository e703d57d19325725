"""The tests of the stand-in for CuPy that hold on a GPU as well, on a GPU."""

from __future__ import annotations

import pytest

from tests.test_halves_on_cuda import test_values_gradients_and_kernels
from tests.test_random_on_devices import (
    test_a_draw_is_made_on_the_device_and_is_the_cpus,
    test_gradients_of_both_orders_use_the_same_mask,
    test_pack_hooks_leave_the_place_of_a_mask_alone,
)
from tests.test_stand_in import (
    test_a_seed_gives_the_same_numbers_on_both_devices,
    test_an_op_gives_the_same_values_and_gradients_on_both_devices,
    test_matrices_without_a_result_are_errors,
    test_second_derivatives_are_the_same_on_both_devices,
    test_training_gives_the_same_parameters_on_both_devices,
)

pytestmark = pytest.mark.cuda

__all__ = [  # which pytest collects here too, without the fixture that installs the stand-in
    "test_a_draw_is_made_on_the_device_and_is_the_cpus",
    "test_a_seed_gives_the_same_numbers_on_both_devices",
    "test_an_op_gives_the_same_values_and_gradients_on_both_devices",
    "test_gradients_of_both_orders_use_the_same_mask",
    "test_matrices_without_a_result_are_errors",
    "test_pack_hooks_leave_the_place_of_a_mask_alone",
    "test_second_derivatives_are_the_same_on_both_devices",
    "test_training_gives_the_same_parameters_on_both_devices",
    "test_values_gradients_and_kernels",
]
