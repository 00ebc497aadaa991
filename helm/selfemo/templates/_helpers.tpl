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

{{/* The namespace of the release's own objects. */}}
{{- define "selfemo.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{/* A value as YAML, with the templates in it rendered. Its argument is (list root value). */}}
{{- define "selfemo.render" -}}
{{- $text := last . | toYaml }}
{{- if contains "{{" $text }}
{{- $text = tpl $text (first .) }}
{{- end }}
{{- $text }}
{{- end }}

{{/* The entries of a dict that are not empty, as YAML. */}}
{{- define "selfemo.nonEmpty" -}}
{{- $entries := dict }}
{{- range $key, $value := . }}
{{- if $value }}
{{- $_ := set $entries $key $value }}
{{- end }}
{{- end }}
{{- toYaml $entries }}
{{- end }}

{{/* The metadata of an object. Its argument is a dict: root, name, and if the object has them namespace,
component, labels and annotations. The object's own labels win over those of values. */}}
{{- define "selfemo.metadata" -}}
{{- $root := .root }}
{{- $labels := include "selfemo.standardLabels" $root | fromYaml }}
{{- with .component }}
{{- $_ := set $labels "app.kubernetes.io/component" . }}
{{- end }}
{{- $labels = merge $labels (.labels | default dict) ($root.Values.commonLabels | default dict) }}
{{- $annotations := merge (dict) (.annotations | default dict) ($root.Values.commonAnnotations | default dict) -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- include "selfemo.render" (list $root $labels) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- include "selfemo.render" (list $root .) | nindent 2 }}
{{- end }}
{{- end }}

{{- define "selfemo.standardLabels" -}}
{{ include "selfemo.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end }}

{{- define "selfemo.instanceLabels" -}}
app.kubernetes.io/name: {{ include "selfemo.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Stage pods have the same name label; the component selects the operator's pods. */}}
{{- define "selfemo.selectorLabels" -}}
{{ include "selfemo.instanceLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The pull secrets of a pod or an account, or nothing. Its argument is (list root secrets): those of
`global.imagePullSecrets` come first. An entry is a name, or an object with a name. */}}
{{- define "selfemo.pullSecrets" -}}
{{- $secrets := list }}
{{- range concat ((first .).Values.global.imagePullSecrets | default list) (last . | default list) }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with uniq $secrets }}
imagePullSecrets:
  {{- include "selfemo.render" (list (first $) .) | nindent 2 }}
{{- end }}
{{- end }}

{{/* The defaults of stage pods, as the file that the operator reads. Empty: there are none. Where the
chart creates no account of stage pods, `global.imagePullSecrets` are among them. */}}
{{- define "selfemo.podDefaults" -}}
{{- $entries := .Values.jobs.podTemplate }}
{{- if not (include "selfemo.jobsNamespaces" . | fromJsonArray) }}
{{- with include "selfemo.pullSecrets" (list . list) | fromYaml }}
{{- $entries = append $entries (dict "template" .) }}
{{- end }}
{{- end }}
{{- with $entries }}
{{- include "selfemo.render" (list $ .) }}
{{- end }}
{{- end }}

{{/* The path of that file in the operator's pods. */}}
{{- define "selfemo.podDefaultsFile" -}}
{{- if include "selfemo.podDefaults" . }}
{{- "/jobs-pod-template/pod-template.yaml" }}
{{- end }}
{{- end }}

{{/* How a pod of the release resolves names. */}}
{{- define "selfemo.dns" -}}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- include "selfemo.render" (list $ .) | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- include "selfemo.render" (list $ .) | nindent 2 }}
{{- end }}
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
{{- else if or (not .Values.watchNamespaces) (has (include "selfemo.namespace" .) .Values.watchNamespaces) }}
{{- include "selfemo.namespace" . }}
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
