"""ElementwiseOptimizer: one update rule over arrays, run on many parameters at once.

The state of the parameters that join together lies in one flat buffer per name; what
``optimizer.state`` shows are views of it. A step copies the gradients into a flat scratch
array (scaled, and with the weight decay added), runs the rule on the flat arrays, and
subtracts the result from each parameter. The parameters stay where they are, so that every
alias of them stays valid. A rule thus costs a dozen array calls for all small parameters
together; a large parameter is worked off in slices that fit the cache.

Where kernels can be launched, one launch does all that for all parameters of a dtype and device.
There the counters may be on the device too (``capturable`` or ``fused``), so that a step can be
left out when gradients overflowed without the host knowing. In a CUDA graph they are in any case:
see in_graph.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import loud, quiet
from gradlite.device import device_of
from gradlite.grad_mode import enable_grad
from gradlite.ops import guard
from gradlite.optim.launch import Launch
from gradlite.optim.optimizer import Closure, Optimizer, Params
from gradlite.optim.plan import (
    Block,
    Cohort,
    Plan,
    Slot,
    build_cohorts,
    build_segment,
    launcher_for,
    place,
)
from gradlite.tensor import Tensor, unwrap

PLANS_KEPT = 8

Group = dict[str, Any]
Advance = tuple[tuple[float, ...], float, tuple[float, ...]]


def number(value: Any) -> float:
    """An option as a Python number; a one-element tensor gives its value."""
    if value.__class__ is float:
        return value  # type: ignore[no-any-return]
    return float(value.array.item() if isinstance(value, Tensor) else value)


def on_device(group: Group) -> bool:
    """Whether a group's counters go with its parameters where kernels update these."""
    return bool(group.get("capturable") or group.get("fused"))


class ElementwiseOptimizer(Optimizer):
    """Base of the optimizers whose update of an element depends on that element alone.

    A subclass gives the rule: `_buffers`, `_advance` and `_update`, perhaps `_variant`.

    Attributes:
        scratch: how many arrays for intermediate results the rule needs.
        reads_param: whether the rule reads the parameters.
        rescales: whether the rule always scales the gradient, which copies it.
        restartable: whether state that is missing begins anew beside state that is there.
    """

    scratch = 1
    reads_param = False
    rescales = False
    restartable = False
    # What an option means that is missing from a state saved before the option existed.
    _late_options: dict[str, Any] = {
        "maximize": False,
        "foreach": None,
        "differentiable": False,
        "capturable": False,
        "fused": None,
        "decoupled_weight_decay": False,
        "amsgrad": False,
        "nesterov": False,
        "momentum": 0,
        "centered": False,
    }

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self._forget_plans()
        super().__init__(params, defaults)
        if defaults.get("fused"):
            if defaults["differentiable"]:
                raise RuntimeError("`fused` does not support `differentiable`")
            if defaults.get("foreach"):
                raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
            self._step_supports_amp_scaling = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget_plans()
        for group in self.param_groups:
            for name, value in self._late_options.items():
                if name in self.defaults:
                    group.setdefault(name, value)
            # What was loaded moves into flat buffers now, so that later views of it stay valid.
            self._join(group, [p for p in group["params"] if self._is_complete(group, p)])

    def _forget_plans(self) -> None:
        self._plans: dict[int, Plan] = {}
        self._earlier_plans: dict[Any, Plan] = {}
        self._slots: dict[int, Slot] = {}
        self._launches: dict[Any, Any] = {}
        self._ahead: dict[int, Any] = {}  # counters that the device alone knows: see in_graph.py

    def _catch_up(self) -> None:
        for mirror in self._ahead.values():
            mirror.catch_up()
        self._ahead.clear()

    def _is_complete(self, group: Group, p: Tensor) -> bool:
        """Whether a parameter has all the state that the rule wants, in the right shapes."""
        state = self._state.get(p, {})
        counters = [name for name in self._counters(group) if not name.startswith("_")]
        buffers = list(self._buffers(group))
        shapes = {name: getattr(unwrap(state.get(name)), "shape", None) for name in buffers}
        return (
            bool(counters or buffers)
            and all(state.get(name) is not None for name in counters)
            and all(shapes[name] == p.array.shape for name in buffers)
        )

    # ----------------------------------------------------------------- what makes a rule
    def _variant(self, group: Group) -> tuple[Any, ...]:
        """The rule's own options that decide which arrays and calls it needs."""
        return ()

    def _counters(self, group: Group) -> dict[str, float]:
        """Names of the 0-d state, with initial values; one with "_" in front is not shown."""
        return {"step": 0.0}

    def _buffers(self, group: Group) -> dict[str, float]:
        """Names of the state shaped like the parameter, with initial values."""
        raise NotImplementedError

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        """The counters' new values, the scale of the gradient and the rule's constants.

        ``round`` rounds a number to the counters' precision.
        """
        raise NotImplementedError

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        """The kernels of `_update` and `_advance`: see optimizer.cu and optimizer_advance.cu."""
        raise NotImplementedError

    def _options(self, group: Group) -> tuple[Any, ...]:
        """The rule's own options, in the order in which the kernel of `_advance` reads them."""
        raise NotImplementedError

    def _shrink(self, group: Group, weight_decay: float, counters: tuple[float, ...]) -> float:
        """What the parameters are multiplied with before the update."""
        if weight_decay and group.get("decoupled_weight_decay"):
            return 1 - number(group["lr"]) * weight_decay
        return 1.0

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        """Update the state and fill ``block.out`` with what is to be subtracted.

        ``block.grad`` may be ``block.out`` itself, or an array that must not be written to.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------ step
    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters that have a gradient; the others and their state stay as is.

        Args:
            closure: evaluates the model again and returns the loss, which step hands back.

        Raises:
            RuntimeError: a gradient's shape is not its parameter's. Nothing has changed then.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._apply(self.param_groups)
        return loss

    def _apply(self, groups: list[Group]) -> None:
        if self._ahead:
            self._catch_up()
        changes = self._state.changes[0]
        plans = self._plans
        work: list[Any] = []
        stale = False
        for group in groups:
            weight_decay = group.get("weight_decay", 0)
            l2 = False
            if weight_decay:
                weight_decay = number(weight_decay)
                l2 = not group.get("decoupled_weight_decay")
            options = (group["maximize"], l2, *self._variant(group))
            params = group["params"]
            plan = plans.get(id(params))
            grads = None
            if plan is not None and plan.options == options and plan.changes == changes:
                grads = plan.collect(params)
            if grads is None:
                stale = True
            work.append((group, weight_decay, options, plan, grads))
        if stale:
            work = self._renew(work)
        # Everything that can fail comes before the first write.
        jobs: list[Any] = []
        launches: list[Any] = []
        for group, weight_decay, options, plan, grads in work:
            for cohort in plan.cohorts:
                if cohort.on_device:
                    numbers, rate = self._device_numbers(group, options, weight_decay)
                    launches.append((self._kernels(options[2:]), cohort, grads, numbers, rate))
                    continue
                shrink = self._shrink(group, weight_decay, cohort.values)
                advance = self._advance(group, cohort.values, cohort.round)
                jobs.append((options, cohort, grads, weight_decay, shrink, advance))
        if jobs and "found_inf" in self.__dict__:
            jobs = self._unscaled(jobs)
        by_arrays = []
        for job in jobs:
            if job[1].launcher is None:
                by_arrays.append(job)
            else:
                launches.append(self._host_launch(*job))
        if by_arrays:
            self._run_all(by_arrays)
        if launches:
            self._launch(launches)
        for group, _, _, plan, _ in work:
            for version in plan.versions:
                version[0] += 1
            if plan.again:
                self._apply([{**group, "params": plan.again}])

    def _run_all(self, jobs: list[Any]) -> None:
        token = quiet()
        try:
            for job in jobs:
                if guard.several is None:
                    self._run(*job)
                else:
                    with guard.on(job[1].blocks[0].params):
                        self._run(*job)
        finally:
            loud(token)

    def _run(
        self,
        options: tuple[Any, ...],
        cohort: Cohort,
        grads: Any,
        weight_decay: float,
        shrink: float,
        advance: Advance,
    ) -> None:
        maximize, l2, *variant = options
        counters, scale, constants = advance
        if maximize and not l2:
            scale = -scale
        numbers = cohort.fill((scale, weight_decay, shrink, *constants))
        c_scale, c_decay, c_shrink, *rest = numbers
        xp = cohort.xp
        multiply, subtract = xp.multiply, xp.subtract
        update = self._update
        combine = subtract if maximize else xp.add
        as_is = scale == 1.0 and not l2
        # list(map(f, a, b, c)) calls f(a[i], b[i], c[i]) for all i, the third being where the
        # result goes: the cheapest loop there is, which counts when there are many small arrays.
        for block in cohort.blocks:
            selected, parts, params = block.select(grads), block.parts, block.params
            if l2:
                list(map(multiply, params, repeat(c_decay), parts))
                list(map(combine, parts, selected, parts))
                if scale != 1.0:
                    multiply(block.out, c_scale, block.out)
            elif as_is and block.bounds is not None:
                (block.grad,) = selected
            else:
                list(map(multiply, selected, repeat(c_scale), parts))
            if shrink != 1.0:
                list(map(multiply, params, repeat(c_shrink), params))
            if block.param is not None:
                for copy, param in zip(block.copies, params):
                    copy[...] = param
            update(xp, block, rest, variant)
            block.grad = block.out  # holds the user's array no longer than the step
            list(map(subtract, params, parts, params))
        if counters:
            cohort.advance(counters)

    # -------------------------------------------------------------------------- launches
    def _device_numbers(
        self, group: Group, options: tuple[Any, ...], weight_decay: float
    ) -> tuple[tuple[float, ...], Tensor | None]:
        """A row of options for the device, and the learning rate if that is there as well."""
        maximize, l2, *_ = options
        lr = group["lr"]
        there = isinstance(lr, Tensor) and not lr.is_cpu and lr.dtype is dtypes.float32
        rate = lr if there else None
        return (
            -1.0 if maximize else 1.0,
            weight_decay if l2 else 0.0,
            0.0 if l2 else weight_decay,
            0.0 if rate is not None else number(lr),
            *map(number, self._options(group)),
        ), rate

    def _host_launch(
        self,
        options: tuple[Any, ...],
        cohort: Cohort,
        grads: Any,
        weight_decay: float,
        shrink: float,
        advance: Advance,
    ) -> tuple[Any, ...]:
        """What `_launch` does for a cohort whose counters the host keeps."""
        maximize, l2, *variant = options
        counters, scale, constants = advance
        if counters:
            cohort.advance(counters)
        numbers = (-1.0 if maximize else 1.0, weight_decay if l2 else 0.0, scale, shrink)
        return self._kernels(variant), cohort, grads, (*numbers, *constants), None

    def _launch(self, launches: list[Any]) -> None:
        """Update what kernels update, whatever the group: one launch where one kernel can do it."""
        key = tuple([(launch[0], id(launch[1])) for launch in launches])
        found = self._launches.get(key)
        if found is None:
            if len(self._launches) >= PLANS_KEPT:
                self._launches.clear()
            together: dict[Any, list[int]] = {}
            for i, (kernels, cohort, *_) in enumerate(launches):
                kind = (kernels, cohort.launcher, cohort.place, cohort.on_device)
                together.setdefault(kind, []).append(i)
            found = self._launches[key] = []
            for (kernels, launcher, *_), at in together.items():
                cohorts = [launches[i][1] for i in at]
                with guard.on(cohorts[0].members[0][1]):
                    found.append((Launch(launcher, kernels, cohorts), at))
        for launch, at in found:
            flags = self._flags(launch) if launch.on_device else []
            if len(launches) == 1:
                _, _, grads, numbers, rate = launches[0]
                work: Any = [grads], [numbers], [rate]
            else:
                own = [launches[i] for i in at]
                work = [o[2] for o in own], [o[3] for o in own], [o[4] for o in own]
            if guard.several is None:
                launch.run(*work, *flags)
            else:
                with guard.on(launch.cohorts[0].members[0][1]):
                    launch.run(*work, *flags)

    def _flags(self, launch: Any) -> list[Any]:
        """What a `GradScaler` has left here, on the device of a launch."""
        flags = [getattr(self, name, None) for name in ("found_inf", "grad_scale")]
        if guard.several is not None:
            there = device_of(launch.cohorts[0].members[0][1])
            flags = [f.to(there) if isinstance(f, Tensor) else f for f in flags]  # type: ignore[attr-defined]
        return [unwrap(flag) for flag in flags]

    def _unscaled(self, jobs: list[Any]) -> list[Any]:
        """Steps of the host after `GradScaler` has left its findings here: perhaps none."""
        if self.__dict__["found_inf"].item():
            return []
        scale = self.__dict__.get("grad_scale")
        if scale is not None:
            for _, cohort, grads, *_ in jobs:
                for i in cohort.numbers():
                    grads[i] /= number(scale)
        return jobs

    # ----------------------------------------------------------------------------- plans
    def _renew(self, work: list[Any]) -> list[Any]:
        """Make new plans where there is none that fits; fails before it changes anything."""
        for group, _, _, _, grads in work:
            if grads is None:
                self._check(group)
        renewed = []
        for group, weight_decay, options, plan, grads in work:
            if grads is None:
                plan, grads = self._new_plan(group, options)
            renewed.append((group, weight_decay, options, plan, grads))
        for _, _, _, plan, _ in renewed:
            plan.changes = self._state.changes[0]
        return renewed

    def _check(self, group: Group) -> None:
        if group.get("differentiable"):
            raise NotImplementedError(
                f"{self.__class__.__name__} cannot record its own step (differentiable=True); "
                "write the update with tensor operations to differentiate through it"
            )
        if group.get("capturable") and any(p.is_cpu for p in group["params"]):
            raise AssertionError(
                "If capturable=True, params and state_steps must be on supported devices: ['cuda']."
            )
        counters, buffers = self._counters(group), self._buffers(group)
        self._advance(group, tuple(counters.values()), float)
        for p in group["params"]:
            if p._grad is None:
                continue
            shape, given = p.array.shape, p._grad.array.shape
            if given != shape:
                raise RuntimeError(
                    f"The size of tensor a ({list(shape)}) must match the size of tensor b "
                    f"({list(given)}): the gradient does not have the shape of its parameter"
                )
            if isinstance(p.array, np.ndarray) and not p.array.flags.writeable:
                raise RuntimeError("a parameter lies in read-only memory and cannot be updated")
            if p.is_inference():
                raise RuntimeError(
                    "Inplace update to inference tensor outside InferenceMode is not allowed."
                    "You can make a clone to get a normal tensor before doing inplace update."
                )
            state, slot = self._state.get(p), self._slots.get(id(p))
            if not state or (slot is not None and slot.serves(p, state, buffers)):
                continue
            for name in (*counters, *buffers):
                found = unwrap(state.get(name))
                if found is None:
                    if name.startswith("_") or self.restartable:
                        continue
                    raise KeyError(name)
                if name in buffers and found.shape != shape:
                    raise RuntimeError(
                        f"the state {name!r} has shape {list(found.shape)}, its parameter "
                        f"{list(shape)}"
                    )

    def _new_plan(self, group: Group, options: tuple[Any, ...]) -> tuple[Plan, list[Any]]:
        params = group["params"]
        # Models whose steps use different parts take turns between a few plans.
        key = (id(params), options, tuple([p._grad is None for p in params]))
        earlier = self._earlier_plans.get(key)
        if earlier is not None and earlier.changes == self._state.changes[0]:
            grads = earlier.collect(params)
            if grads is not None:
                self._plans[id(params)] = earlier
                return earlier, grads
        plan = Plan(params, options)
        arrays = [array for array in plan.arrays if array is not None]
        active = [p for p, array in zip(params, plan.arrays) if array is not None]
        names = tuple(self._buffers(group))
        slots: list[Slot | None] = [None] * len(active)
        if names or self._counters(group):
            self._join(group, active)
            slots = [self._slots[id(p)] for p in active]
        plan.cohorts = build_cohorts(
            arrays, slots, names, self.scratch, self.reads_param, on_device(group),
            self._kernels(options[2:])[0], self.rescales,
        )  # fmt: skip
        if len(self._earlier_plans) >= PLANS_KEPT:
            self._earlier_plans.clear()
        self._plans[id(params)] = self._earlier_plans[key] = plan
        return plan, [p._grad.array for p in active]  # type: ignore[union-attr]

    def _join(self, group: Group, params: list[Tensor]) -> None:
        """Give flat state to the parameters that have none, keeping what they have."""
        counters, buffers = self._counters(group), self._buffers(group)
        newcomers: dict[Any, list[Tensor]] = {}
        for p in dict.fromkeys(params):
            slot = self._slots.get(id(p))
            if slot is None or not slot.serves(p, self._state.get(p, {}), buffers):
                newcomers.setdefault(place(p.array), []).append(p)
            elif on_device(group) and isinstance(slot.segment.counters, np.ndarray):
                # Only since its state was made.
                if not p.is_cpu and launcher_for(p.array) is not None:
                    newcomers.setdefault(place(p.array), []).append(p)
        double = dtypes.get_default_dtype() is dtypes.float64 and not group.get("fused")
        for together in newcomers.values():
            there = on_device(group) and launcher_for(together[0].array) is not None
            dtype = np.float64 if double and not there else np.float32
            with guard.on(together[0].array):
                for slot in build_segment(together, buffers, counters, dtype, there, self.rescales):
                    state = self._state[slot.param]
                    self._keep(slot, state, counters, buffers)
                    state.update(slot.entries)
                    self._slots[id(slot.param)] = slot

    @staticmethod
    def _keep(slot: Any, state: Any, counters: Any, buffers: Any) -> None:
        """Copy the state that a parameter has into its flat one."""
        for row, name in enumerate(counters):
            if name.startswith("_"):
                if any(state.get(name) is not None for name in buffers):
                    slot.segment.counters[row, slot.column] = 1.0
            elif state.get(name) is not None:
                slot.segment.counters[row, slot.column] = number(unwrap(state[name]))
        for name in buffers:
            if state.get(name) is not None:
                slot.entries[name].array[...] = unwrap(state[name])
