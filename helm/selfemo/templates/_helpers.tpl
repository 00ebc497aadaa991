{{- define "selfemo.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of all objects; at most 48 characters, so that a suffix fits. */}}
{{- define "selfemo.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" }}
{{- else if contains (include "selfemo.name" .) .Release.Name }}
{{- .Release.Name | trunc 48 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "selfemo.name" .) | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "selfemo.labels" -}}
{{ include "selfemo.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "selfemo.instanceLabels" -}}
app.kubernetes.io/name: {{ include "selfemo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Stage pods carry the same name; the component tells the operator's pods from them. */}}
{{- define "selfemo.selectorLabels" -}}
{{ include "selfemo.instanceLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{/* An image's reference out of (list root image). */}}
{{- define "selfemo.image" -}}
{{- $root := first . }}
{{- $image := last . }}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry }}
{{- with $registry }}{{ . | trimSuffix "/" }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "selfemo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "selfemo.fullname" .) }}
{{- else }}
{{- required "serviceAccount.name must be given with serviceAccount.create=false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Namespaces in which the stage pods' account is made, as a JSON list. */}}
{{- define "selfemo.jobsNamespaces" -}}
{{- ternary (.Values.watchNamespaces | default .Values.jobs.serviceAccount.namespaces) list .Values.jobs.serviceAccount.create | toJson }}
{{- end }}

{{/* Account of stage pods; empty: their namespace's default. */}}
{{- define "selfemo.jobsServiceAccountName" -}}
{{- if .Values.jobs.serviceAccount.name }}
{{- .Values.jobs.serviceAccount.name }}
{{- else if include "selfemo.jobsNamespaces" . | fromJsonArray }}
{{- include "selfemo.fullname" . }}-jobs
{{- end }}
{{- end }}

{{- define "selfemo.testNamespace" -}}
{{- if .Values.test.namespace }}
{{- .Values.test.namespace }}
{{- else if or (not .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) }}
{{- .Release.Namespace }}
{{- else }}
{{- first .Values.watchNamespaces }}
{{- end }}
{{- end }}

{{/* What the operator does in each namespace that it serves, and nothing more: no Secrets, no exec,
no logs. */}}
{{- define "selfemo.rules" -}}
- apiGroups: [selfemo.dev]
  resources: [emotionevolutions]
  verbs: [get, list, watch, delete] # delete: ttlSecondsAfterFinished
- apiGroups: [selfemo.dev]
  resources: [emotionevolutions/status]
  verbs: [get, update]
- apiGroups: [selfemo.dev]
  resources: [emotionevolutions/finalizers]
  verbs: [update] # blockOwnerDeletion in the Jobs' owner references
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch] # why a pod waits, and what its container said when it ended
- apiGroups: [""]
  resources: [services]
  verbs: [get, create] # names of training nodes
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}
