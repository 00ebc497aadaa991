{{- define "selfemo.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of all objects. It has at most 48 characters, so that a suffix fits. */}}
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

{{/* Stage pods have the same name label; the component selects the operator's pods. */}}
{{- define "selfemo.selectorLabels" -}}
{{ include "selfemo.instanceLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The reference of an image. Its argument is (list root image). */}}
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
{{- required "serviceAccount.name is required if serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The namespaces in which the service account of stage pods is created, as a JSON list. */}}
{{- define "selfemo.jobsNamespaces" -}}
{{- ternary (include "selfemo.knownNamespaces" . | fromJsonArray) list .Values.jobs.serviceAccount.create | toJson }}
{{- end }}

{{/* The namespaces with evolutions that the chart knows, as a JSON list. */}}
{{- define "selfemo.knownNamespaces" -}}
{{- .Values.watchNamespaces | default .Values.jobs.serviceAccount.namespaces | toJson }}
{{- end }}

{{/* The labels that the operator sets on stage pods. */}}
{{- define "selfemo.stageLabels" -}}
app.kubernetes.io/name: selfemo
app.kubernetes.io/managed-by: selfemo
{{- end }}

{{/* The service account of stage pods. Empty: the default account of their namespace. */}}
{{- define "selfemo.jobsServiceAccountName" -}}
{{- if .Values.jobs.serviceAccount.name }}
{{- .Values.jobs.serviceAccount.name }}
{{- else if include "selfemo.jobsNamespaces" . | fromJsonArray }}
{{- include "selfemo.fullname" . }}-jobs
{{- end }}
{{- end }}

{{/* The user ID of stage pods. 0: the platform assigns it. */}}
{{- define "selfemo.jobsUser" -}}
{{- $user := .Values.jobs.podSecurity.runAsUser }}
{{- if kindIs "string" $user }}
{{- $platform := or (eq $user "Platform") (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}
{{- ternary 0 65532 $platform }}
{{- else }}
{{- int64 $user }}
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

{{/* The rights of the operator in each namespace that it serves. They include no Secrets, no exec and
no logs. tests/integration/operator/test_rights.py shows that each one is needed. */}}
{{- define "selfemo.rules" -}}
- apiGroups: [selfemo.dev]
  resources: [emotionevolutions]
  verbs: [get, list, watch, delete] # delete: for ttlSecondsAfterFinished
- apiGroups: [selfemo.dev]
  resources: [emotionevolutions/status]
  verbs: [update]
- apiGroups: [selfemo.dev]
  resources: [emotionevolutions/finalizers]
  verbs: [update] # for blockOwnerDeletion in the owner references of Jobs
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch] # the reason why a pod waits, and its termination message
- apiGroups: [""]
  resources: [services]
  verbs: [get, create] # the DNS names of training nodes
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
