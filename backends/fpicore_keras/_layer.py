"""What Keras 3 layers whose output is a fixed point have in common."""

from abc import abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any

import keras as _keras

from fpicore import (
    InputError,
    LayerOptions,
    LayerReport,
    LayerSummary,
    MissingBackendError,
    Solution,
    report_of,
    summarize,
)

keras: Any = _keras  # its public names are made at run time, so that type checkers do not see them
ops: Any = keras.ops
Map = Callable[..., Any]
register = keras.saving.register_keras_serializable("fpicore")


def library() -> Any:
    """fpicore on the framework that Keras runs on.

    Raises:
        MissingBackendError: fpicore has no backend for it.
    """
    name = keras.backend.backend()
    if name not in ("torch", "jax", "tensorflow"):
        raise MissingBackendError(
            f"expected Keras on torch, jax or tensorflow, received the backend {name!r}; set the "
            "environment variable KERAS_BACKEND before Keras is imported"
        )
    return import_module(f"fpicore_{name}")


class _Memory:
    """What a layer remembers of its last call, out of Keras's sight."""

    last: LayerReport | None = None


class AbstractLayer(keras.layers.Layer):
    """z* = f(z*, x…); what f is, a subclass says.

    The call takes a tensor, or a list of tensors, x. Keras runs the same layer on PyTorch, JAX
    and TensorFlow, in ``fit``, with mixed precision and under a distribution strategy.

    A layer inside f may neither draw random numbers nor update state while it trains (Dropout,
    BatchNormalization): every step of the solve would see another f.

    Attributes:
        options: the `fpicore.LayerOptions`.
        last: the `fpicore.LayerReport` of the last call, per system; None before and after a call
            that was traced, as in ``fit``.
        summary: the `fpicore.LayerSummary` of the last call with ``training=True``, traced or not.
    """

    parts: tuple[str, ...] = ()
    """Attributes that hold what f is made of."""

    def __init__(self, options: LayerOptions, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.options = options
        self._memory = _Memory()

    @abstractmethod
    def map(self, inputs: tuple[Any, ...], training: bool) -> tuple[Map, tuple[Any, ...]]:
        """f and its further arguments, for a solve with these inputs."""

    def prepare(self, z: Any, inputs: tuple[Any, ...]) -> None:
        """Make the weights of f, given symbolic tensors."""
        f = getattr(self, self.parts[0])
        if isinstance(f, keras.layers.Layer) and not f.built:
            f(z, *inputs)

    @property
    def last(self) -> LayerReport | None:
        """See above."""
        return self._memory.last

    @property
    def summary(self) -> LayerSummary:
        """See above."""
        steps, residual, failed = (float(ops.convert_to_numpy(v)) for v in self._figures)
        return LayerSummary(round(steps), residual, round(failed))

    def build(self, input_shape: Any) -> None:
        """Build what f is made of, by a symbolic call."""
        inputs = _symbols(input_shape, self.compute_dtype)
        z = self._symbolic_start(inputs)
        self.prepare(z, inputs)
        figure = {"trainable": False, "aggregation": "mean", "initializer": "zeros", "shape": ()}
        self._figures = [
            self.add_weight(name=name, dtype="float32", **figure) for name in LayerSummary._fields
        ]
        if self.options.warm_start:
            self._filled = self.add_weight(name="filled", dtype="float32", **figure)
            self._kept = [self._room(leaf) for leaf in keras.tree.flatten(z)]
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """z*, differentiable."""
        x, options = _spread(inputs), self.options
        if training:
            self._refuse_what_changes()
        start = self._start(x)
        begin = self._warm(start) if options.warm_start else start
        f, args = self.map(x, bool(training))
        solution = library().fixed_point(f, begin, args, **options.keywords())
        self._memory.last = report_of(solution) if _is_concrete(solution) else None
        if training:
            self._note(solution)
            if options.warm_start:
                self._keep(solution, start)
        return solution.value

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Of the shapes of the start, without a solve."""
        del training
        return self._symbolic_start(_spread(inputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the start."""
        z = self._symbolic_start(_symbols(input_shape, self.compute_dtype))
        return keras.tree.map_structure(lambda leaf: leaf.shape, z)

    def get_config(self) -> dict[str, Any]:
        """Options and parts; functions among them must be registered with Keras."""
        config = {**super().get_config(), **self.options.config()}
        if callable(self.options.z0):
            config["z0"] = _write(self.options.z0)
        return {**config, **{name: _write(getattr(self, name)) for name in self.parts}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer again, with weights of its own."""
        restored = LayerOptions.restore(config)
        names = [*cls.parts, *(["z0"] if isinstance(config["z0"], dict) else [])]
        for name in names:
            restored[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**restored)

    def _start(self, x: tuple[Any, ...]) -> Any:
        if callable(self.options.z0):
            return self.options.z0(*x)
        shape = self.options.start_shape(x, ops.shape)
        return ops.zeros(shape, dtype=x[0].dtype)

    def _symbolic_start(self, x: tuple[Any, ...]) -> Any:
        if callable(self.options.z0):
            return self.options.z0(*x)
        return keras.KerasTensor(self.options.start_shape(x), dtype=x[0].dtype)

    def _refuse_what_changes(self) -> None:
        weights = {id(v) for v in self.weights}
        random = [v.path for v in self.variables if id(v) not in weights]
        parts = [layer for layer in self._flatten_layers(include_self=False) if layer.trainable]
        random += [layer.name for layer in parts if isinstance(layer, _UPDATING)]
        if random:
            raise InputError(
                "expected layers in f that neither draw random numbers nor update state while "
                f"training, received {random}; put them before or after {self.name}"
            )

    def _note(self, solution: Solution) -> None:
        for variable, figure in zip(self._figures, summarize(ops, solution), strict=True):
            variable.assign(ops.cast(figure, "float32"))

    def _room(self, leaf: Any) -> Any:
        if None in leaf.shape:
            raise InputError(
                "expected a batch of known size with warm_start=True, received shapes "
                f"{tuple(leaf.shape)}; give keras.Input(batch_shape=...)"
            )
        return self.add_weight(
            name="kept", shape=leaf.shape, dtype=leaf.dtype, initializer="zeros", trainable=False,
            autocast=False, aggregation="only_first_replica",
        )  # fmt: skip

    def _fits(self, start: Any) -> bool:
        shapes = [tuple(leaf.shape) for leaf in keras.tree.flatten(start)]
        return shapes == [tuple(v.shape) for v in self._kept]

    def _warm(self, start: Any) -> Any:
        if not self._fits(start):
            return start
        filled, leaves = ops.convert_to_tensor(self._filled) > 0.5, keras.tree.flatten(start)
        pairs = zip(self._kept, leaves, strict=True)
        chosen = [ops.where(filled, ops.cast(v, leaf.dtype), leaf) for v, leaf in pairs]
        return keras.tree.pack_sequence_as(start, chosen)

    def _keep(self, solution: Solution, start: Any) -> None:
        """The value where a system converged, and the start elsewhere."""
        if not self._fits(start):
            return
        converged = ops.convert_to_tensor(solution.converged)
        batch = tuple(converged.shape)
        ends, begins = keras.tree.flatten(solution.value), keras.tree.flatten(start)
        for variable, z, z0 in zip(self._kept, ends, begins, strict=True):
            mask = ops.reshape(converged, batch + (1,) * (len(z.shape) - len(batch)))
            variable.assign(ops.stop_gradient(ops.where(mask, z, z0)))
        self._filled.assign(1.0)


_UPDATING = (
    AbstractLayer,
    keras.layers.BatchNormalization,
    keras.layers.SpectralNormalization,
)


def _write(part: Any) -> Any:
    """Its configuration, unbuilt: `prepare` builds by a call, which needs no build of its own."""
    config = keras.saving.serialize_keras_object(part)
    if isinstance(config, dict):
        config.pop("build_config", None)
    return config


def _spread(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, (list, tuple)) else (inputs,)


def _symbols(shape: Any, dtype: str) -> tuple[Any, ...]:
    """Symbolic inputs of one shape or of several."""
    several = bool(shape) and isinstance(shape[0], (list, tuple))
    shapes = shape if several else [shape]
    return tuple([keras.KerasTensor(tuple(one), dtype=dtype) for one in shapes])


def _is_concrete(solution: Solution) -> bool:
    """Whether the status has values: each framework has an error of its own where it has not."""
    try:
        solution.result.flat()
    except Exception:
        return False
    return True
