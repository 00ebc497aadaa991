"""``templates/_arguments.tpl``: the operator's arguments, from the declaration of its settings.

The values that set them must have the same defaults, limits and choices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from tools.chart.common import NOTE, ChartError
from tools.chart.values import Value
from tools.chart.values_schema import property_schema

from selfemo_operator.controller.objects.settings import DeclaredSetting

#: Options whose arguments the chart derives from several values or from the release, with the
#: template expression. An empty result leaves the argument out if the option's default is empty.
_EXPRESSIONS = {
    "--jobs-image": 'include "selfemo.image" (list . .Values.jobs.image)',
    "--jobs-service-account": 'include "selfemo.jobsServiceAccountName" .',
    "--jobs-run-as-user": 'include "selfemo.jobsUser" .',
    "--jobs-pod-template": 'include "selfemo.podDefaultsFile" .',
    "--jobs-metrics-port": 'ternary "9464" "" .Values.metrics.podMonitor.enabled',
    "--metrics-tls-folder": 'ternary "/metrics-tls" "" (not (empty .Values.metrics.tlsSecret))',
    "--lease-namespace": 'include "selfemo.namespace" .',
    "--lease-name": 'include "selfemo.fullname" .',
}
#: Options that get their default: the ports in the Deployment and the Service have these numbers.
_FIXED = ("--health-port", "--metrics-port")
#: The section of values.yaml in which each value sets an option of the operator.
_OPERATOR = "operator"


def arguments_template(settings: Sequence[DeclaredSetting]) -> str:
    """Return the template with the operator's arguments.

    Parameters
    ----------
    settings
        The declared settings, in the order of the arguments.

    Raises
    ------
    ChartError
        If the chart has no value or expression for an option, or an expression for an unknown one.
    """
    flags = {declared.setting.flag for declared in settings}
    for flag in (*_EXPRESSIONS, *_FIXED):
        if flag not in flags:
            raise ChartError(
                f"tools/chart/arguments.py: the operator has no option `{flag}`: remove it"
            )
    lines = [line for declared in settings for line in _argument(declared)]
    start = f'{{{{- /* {NOTE} */}}}}\n{{{{- define "selfemo.arguments" -}}}}'
    return "\n".join([start, *lines, "{{- end }}"]) + "\n"


def _argument(declared: DeclaredSetting) -> list[str]:
    """Return the template lines that pass a setting to the operator."""
    flag, default = declared.setting.flag, declared.default
    if not flag:
        return []
    if flag in _FIXED:
        return [f"- {flag}={default}"]
    if declared.setting.value:
        value = f".Values.{declared.setting.value}"
    elif flag in _EXPRESSIONS:
        value = _EXPRESSIONS[flag]
    else:
        raise ChartError(
            f"the option `{flag}` is not in the chart: name its value in the declaration "
            "(controller/objects/settings.py), or add an expression to tools/chart/arguments.py"
        )
    if isinstance(default, bool):
        return [f"{{{{- if {value} }}}}", f"- {flag}", "{{- end }}"]
    if isinstance(default, tuple):
        return [f"{{{{- range {value} }}}}", f"- {flag}={{{{ . }}}}", "{{- end }}"]
    if not default:
        return [f"{{{{- with {value} }}}}", f"- {flag}={{{{ . }}}}", "{{- end }}"]
    number = " | int64" if isinstance(default, int | float) else ""
    return [f"- {flag}={{{{ {value}{number} }}}}"]


def setting_problems(values: Sequence[Value], settings: Sequence[DeclaredSetting]) -> list[str]:
    """Return the differences between values.yaml and the operator's settings.

    Parameters
    ----------
    values
        The keys of values.yaml.
    settings
        The declared settings.
    """
    leaves = {".".join(leaf.path): leaf for value in values for leaf in value.leaves()}
    bound = {declared.setting.value: declared for declared in settings if declared.setting.value}
    problems = [
        f"values.yaml: `{path}` is not a setting of the operator (controller/objects/settings.py)"
        for path in leaves
        if path.startswith(f"{_OPERATOR}.") and path not in bound
    ]
    for path, declared in bound.items():
        if path not in leaves:
            problems.append(f"values.yaml lacks `{path}`, which sets `{declared.setting.flag}`")
        else:
            problems += _differences(leaves[path], declared)
    return problems


def environment_problems(deployment: str, settings: Sequence[DeclaredSetting]) -> list[str]:
    """Return the environment variables that the template of the Deployment lacks.

    Parameters
    ----------
    deployment
        The template of the Deployment.
    settings
        The declared settings.
    """
    variables = [d.setting.env for d in settings if d.setting.env and not d.setting.flag]
    return [
        f"templates/deployment.yaml must set the environment variable {name}"
        for name in variables
        if f"- name: {name}" not in deployment
    ]


def _differences(value: Value, declared: DeclaredSetting) -> Iterator[str]:
    setting, default = declared.setting, declared.default
    name = f"values.yaml: `{'.'.join(value.path)}`"
    default = list(default) if isinstance(default, tuple) else default
    if default is not dataclasses.MISSING and value.default != default:
        yield f"{name} must have the default of `{setting.flag}`: {default}"
    if setting.choices and value.schema.get("enum") != list(setting.choices):
        yield f"{name} must have the choices of `{setting.flag}`: {', '.join(setting.choices)}"
    bounds = property_schema(value)
    if setting.minimum is not None and bounds.get("minimum", -math.inf) < setting.minimum:
        yield f"{name} must have the minimum of `{setting.flag}`: {setting.minimum}"
    if setting.maximum is not None and bounds.get("maximum", math.inf) > setting.maximum:
        yield f"{name} must have the maximum of `{setting.flag}`: {setting.maximum}"
