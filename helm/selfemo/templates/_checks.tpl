{{/* Checks of values that the schema cannot express. */}}
{{- define "selfemo.checkValues" -}}
{{- $reserved := include "selfemo.standardLabels" . | fromYaml | keys }}
{{- $reserved = append $reserved "app.kubernetes.io/component" }}
{{- $labels := dict
  "commonLabels" .Values.commonLabels
  "podLabels" .Values.podLabels
  "metrics.serviceMonitor.labels" .Values.metrics.serviceMonitor.labels
  "metrics.podMonitor.labels" .Values.metrics.podMonitor.labels
  "metrics.rules.labels" .Values.metrics.rules.labels
  "dashboards.labels" .Values.dashboards.labels }}
{{- range $path, $map := $labels }}
{{- range $key, $_ := $map }}
{{- if has $key $reserved }}
{{- fail (printf "%s must not contain %s: the chart sets this label itself. Use another key." $path $key) }}
{{- else if hasPrefix "rbac.authorization.k8s.io/aggregate-to-" $key }}
{{- fail (printf "%s must not contain %s: it would add the rights of the operator to a role of the cluster." $path $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.jobs.serviceAccount.imagePullSecrets (not (include "selfemo.jobsNamespaces" . | fromJsonArray)) }}
{{- fail "jobs.serviceAccount.imagePullSecrets: the chart creates no account of stage pods. List the namespaces in watchNamespaces or in jobs.serviceAccount.namespaces, or name the Secrets in jobs.podTemplate." }}
{{- end }}
{{- if .Values.metrics.rules.alerts }}
{{- $alerts := include "selfemo.alerts" . | fromJsonArray }}
{{- range $name, $_ := .Values.metrics.rules.alerts }}
{{- if not (has $name $alerts) }}
{{- fail (printf "metrics.rules.alerts.%s: there is no alert of this name. The alerts are %s." $name (join ", " $alerts)) }}
{{- end }}
{{- end }}
{{- end }}
{{- $options := list }}
{{- range include "selfemo.arguments" . | fromYamlArray }}
{{- $options = append $options (splitList "=" . | first) }}
{{- end }}
{{- range .Values.extraArgs }}
{{- $option := splitList "=" . | first }}
{{- if has $option $options }}
{{- fail (printf "extraArgs must not contain %s: another value of the chart sets this option." $option) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The names of all alerts, sorted, as a JSON list. */}}
{{- define "selfemo.alerts" -}}
{{- $names := list }}
{{- range $path, $_ := .Files.Glob "files/rules/*.yaml" }}
{{- range ($.Files.Get $path | fromYaml).groups }}
{{- range .rules }}
{{- with .alert }}
{{- $names = append $names . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- sortAlpha $names | toJson }}
{{- end }}

{{/* "yes" where an object of another project's kind is to be rendered, otherwise nothing. Its argument is
(list root value kind project): the value that turned the object on, its kind as `group/version/Kind`, and
the project whose CRDs it needs. Helm lists kinds only if it asks a cluster. */}}
{{- define "selfemo.renders" -}}
{{- $root := index . 0 }}
{{- $apis := $root.Capabilities.APIVersions }}
{{- if or (not ($apis.Has "apps/v1/Deployment")) ($apis.Has (index . 2)) (eq $root.Values.renderMode "AlwaysRender") -}}
yes
{{- else if eq $root.Values.renderMode "FailIfMissing" }}
{{- fail (printf "%s is on, but the cluster does not serve %s. Install the CRDs of %s first, or turn the value off, or set renderMode to SkipIfMissing." (index . 1) (index . 2) (index . 3)) }}
{{- end }}
{{- end }}

{{- define "selfemo.rendersServiceMonitor" -}}
{{- if .Values.metrics.serviceMonitor.enabled }}
{{- include "selfemo.renders" (list . "metrics.serviceMonitor.enabled" "monitoring.coreos.com/v1/ServiceMonitor" "the Prometheus operator") }}
{{- end }}
{{- end }}

{{- define "selfemo.rendersPodMonitor" -}}
{{- if .Values.metrics.podMonitor.enabled }}
{{- include "selfemo.renders" (list . "metrics.podMonitor.enabled" "monitoring.coreos.com/v1/PodMonitor" "the Prometheus operator") }}
{{- end }}
{{- end }}

{{- define "selfemo.rendersRules" -}}
{{- if .Values.metrics.rules.enabled }}
{{- include "selfemo.renders" (list . "metrics.rules.enabled" "monitoring.coreos.com/v1/PrometheusRule" "the Prometheus operator") }}
{{- end }}
{{- end }}

{{- define "selfemo.rendersGrafanaDashboards" -}}
{{- if .Values.dashboards.grafanaOperator.enabled }}
{{- include "selfemo.renders" (list . "dashboards.grafanaOperator.enabled" "grafana.integreatly.org/v1beta1/GrafanaDashboard" "the Grafana operator") }}
{{- end }}
{{- end }}
