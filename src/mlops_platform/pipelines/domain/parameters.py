"""Typed parameters: what a pipeline declares, and what a run is given."""

from collections.abc import Mapping
from typing import Any

from mlops_platform.contracts.pipelines import ParameterSpec, ParameterType
from mlops_platform.core.errors import FieldError
from mlops_platform.pipelines.errors import ParametersInvalid, PipelineInvalid

_TYPES: dict[ParameterType, tuple[type, ...]] = {
    ParameterType.STRING: (str,),
    ParameterType.INTEGER: (int,),
    ParameterType.NUMBER: (int, float),
    ParameterType.BOOLEAN: (bool,),
    ParameterType.OBJECT: (dict,),
    ParameterType.ARRAY: (list,),
}


def check_declarations(specs: Mapping[str, ParameterSpec]) -> None:
    """Each default and choice is of its declared type, and the default is one of the choices."""
    for name, spec in specs.items():
        for index, choice in enumerate(spec.choices or ()):
            if not _fits(choice, spec.type):
                raise PipelineInvalid.of(f"parameters.{name}.choices.{index}", f"must be {_spell(spec.type)}", choice)
        if spec.default is not None and (problem := _problem(spec.default, spec)):
            raise PipelineInvalid.of(f"parameters.{name}.default", problem, spec.default)


def bind(specs: Mapping[str, ParameterSpec], given: Mapping[str, Any], *, at: str = "parameters") -> dict[str, Any]:
    """The parameters of one run: what was given over the defaults. All that is wrong is said at once."""
    errors = [
        FieldError(f"{at}.{name}", f"the pipeline has no such parameter; it has {sorted(specs) or 'none'}", given[name])
        for name in given
        if name not in specs
    ]
    bound: dict[str, Any] = {}
    for name, spec in specs.items():
        value = given.get(name, spec.default)
        if name not in given and value is None:
            errors.append(FieldError(f"{at}.{name}", "has no default and must be given"))
        elif problem := _problem(value, spec):
            errors.append(FieldError(f"{at}.{name}", problem, value))
        bound[name] = value
    if errors:
        raise ParametersInvalid("; ".join(f"{e.field}: {e.message}" for e in errors[:5]), errors=errors)
    return bound


def _problem(value: Any, spec: ParameterSpec) -> str | None:
    if not _fits(value, spec.type):
        return f"must be {_spell(spec.type)}"
    if spec.choices is not None and value not in spec.choices:
        return f"must be one of {spec.choices}"
    return None


def _fits(value: Any, kind: ParameterType) -> bool:
    # bool is an int in Python and is not one in JSON.
    if isinstance(value, bool):
        return kind is ParameterType.BOOLEAN
    return isinstance(value, _TYPES[kind])


def _spell(kind: ParameterType) -> str:
    return f"an {kind}" if kind.value[0] in "aeio" else f"a {kind}"
