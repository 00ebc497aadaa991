"""``templates/_reused-values.tpl``: refuses values that lack defaults of this chart.

``helm upgrade --reuse-values`` takes the values of the last release, with the defaults of its
chart. A value that this chart has added is then missing, and templates would render nothing or a
zero for it. The template looks for the sections, and for the numbers that the operator gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tools.chart.common import NOTE
from tools.chart.values import Value

from selfemo_operator.controller.objects.settings import DeclaredSetting

_PROBLEM = (
    "the value %s is missing. An upgrade with --reuse-values keeps the defaults of the older "
    "chart: use --reset-then-reuse-values."
)


def reused_values_template(values: Sequence[Value], settings: Sequence[DeclaredSetting]) -> str:
    """Return the template, which fails with a sentence if a value is missing.

    Parameters
    ----------
    values
        The keys of values.yaml.
    settings
        The declared settings of the operator.
    """
    names = [".".join(path) for path in _sections(values)]
    # a flag without a default is left out where its value is empty
    names += [d.setting.value for d in settings if d.setting.value and _is_number(d.default)]
    listed = "\n".join(f'  "{name}"' for name in names)
    return f"""\
{{{{- /* {NOTE} */}}}}
{{{{- define "selfemo.checkReusedValues" -}}}}
{{{{- $names := list
{listed} }}}}
{{{{- range $name := $names }}}}
{{{{- $value := $.Values }}}}
{{{{- range $key := splitList "." $name }}}}
{{{{- $value = index ($value | default dict) $key }}}}
{{{{- end }}}}
{{{{- if kindIs "invalid" $value }}}}
{{{{- fail (printf "{_PROBLEM}" $name) }}}}
{{{{- end }}}}
{{{{- end }}}}
{{{{- end }}}}
"""


def _is_number(default: object) -> bool:
    return isinstance(default, int | float) and not isinstance(default, bool) and bool(default)


def _sections(values: Sequence[Value]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the sections, each before those below it."""
    for value in values:
        if value.children:
            yield value.path
            yield from _sections(value.children)
