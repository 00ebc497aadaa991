"""``templates/crd.yaml``: the generated CRD as a template of the chart."""

from __future__ import annotations

from tools.chart.common import CRD, NOTE, ChartError


def crd_template(crd: str) -> str:
    """Return the template of the CRD, with the CRD's own braces escaped.

    Parameters
    ----------
    crd
        The generated CRD as YAML, with a comment in its first line.
    """
    head, _, rest = crd.partition("\nmetadata:\n")
    name, _, rest = rest.partition("\n")
    if not (rest.startswith("spec:\n") and name.startswith("  name: ")):
        raise ChartError(f"{CRD.name}: `metadata` must contain only `name`")
    name = name.strip().removeprefix("name: ")
    escaped = rest.rstrip("\n").replace("{{", '{{ "{{" }}')
    body = head.partition("\n")[2]  # without the comment of the CRD's generator
    return f"""\
{{{{- /* {NOTE} */}}}}
{{{{- if .Values.crds.install }}}}
{body}
metadata:
  {{{{- $keep := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crds.keep }}}}
  {{{{- $annotations := merge $keep (.Values.crds.annotations | default dict) }}}}
  {{{{- $metadata := dict "root" . "name" "{name}" "annotations" $annotations }}}}
  {{{{- include "selfemo.metadata" $metadata | nindent 2 }}}}
{escaped}
{{{{- end }}}}
"""
