"""Where gradlite knowingly differs from PyTorch: tests that are expected to fail, with the reason.

Each entry is strict: when the difference goes, the test passes and this list fails.
"""

FUSED = "one fused or composed op here where PyTorch records another one: the gradient is the same"
EDGES = "a Python number keeps a place among the edges of an op, without a node behind it"
NO_GRAD_VIEW = "a view that no_grad made of a graph hands its base's requires_grad on to its uses"

KNOWN = {
    "test_grad_fn.py::test_grad_fn_is_named_as_in_pytorch[radd]": EDGES,
    "test_grad_fn.py::test_grad_fn_is_named_as_in_pytorch[rsub]": EDGES,
    "test_grad_fn.py::test_grad_fn_is_named_as_in_pytorch[pow_scalar]": EDGES,
    "test_grad_fn.py::test_grad_fn_is_named_as_in_pytorch[rpow]": EDGES,
    "test_grad_fn.py::test_grad_fn_is_named_as_in_pytorch[matmul_3d]": FUSED,
    "test_grad_fn.py::test_grad_fn_of_functions_is_named_as_in_pytorch[addmm]": FUSED,
    "test_grad_fn.py::test_grad_fn_of_functions_is_named_as_in_pytorch[linear_without_bias]": FUSED,
    "test_grad_fn.py::test_grad_fn_of_functions_is_named_as_in_pytorch[linear_3d]": FUSED,
    "test_grad_fn.py::test_grad_fn_of_functions_is_named_as_in_pytorch[nll_loss]": FUSED,
    "test_grad_fn.py::test_grad_fn_of_functions_is_named_as_in_pytorch"
    "[binary_cross_entropy_with_logits]": FUSED,
    "test_inplace_saved.py::test_a_changed_input_is_caught_exactly_where_it_was_saved"
    "[cross_entropy]": "the fused loss guards its logits, which it reads again under create_graph",
    "test_found_by_fuzzing.py::test_a_view_made_in_no_grad_passes_no_gradient_on": NO_GRAD_VIEW,
    "test_found_by_fuzzing.py::test_a_view_made_in_no_grad_saves_nothing_for_its_own_gradient": (
        NO_GRAD_VIEW
    ),
    "test_no_grad_and_detach.py::test_detach_in_place_of_a_view_is_refused": (
        "PyTorch's message ends with a path in PyTorch's sources"
    ),
    "test_python_protocols.py::test_item_of_a_graph_is_allowed": (
        "int() and float() of a tensor in a graph warn whatever its dtype"
    ),
    "test_python_protocols.py::test_inspection": "not every alias of the inspection methods exists",
    "test_python_protocols.py::test_deepcopy_keeps_attributes_and_views_of_one_storage": (
        "deepcopy copies each tensor's elements: views of one storage are apart afterwards"
    ),
}
