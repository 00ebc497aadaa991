{{/* The tiny evolution of `helm test`. Without storage it is only validated by the API server. */}}
{{- define "selfemo.testEvolution" -}}
{{- $storage := .Values.test.storage | default (dict "uri" "s3://selfemo-test/nowhere") }}
{{- $folder := include "selfemo.testFolder" . }}
{{- $source := dict "uri" (printf "%s/dialogues.jsonl" $folder) "format" "JSONL" -}}
apiVersion: selfemo.dev/v1alpha1
kind: EmotionEvolution
metadata:
  # the API allows at most 36 characters, and the first must be a letter
  name: {{ printf "test-%s" (include "selfemo.fullname" . | trunc 31 | trimSuffix "-") }}
  namespace: {{ include "selfemo.testNamespace" . }}
spec:
  recipe: tests-v1
  model: {uri: {{ printf "%s/model" $folder | quote }}}
  dataset:
    labels: [joy, anger, sadness, neutral]
    sources:
      - {{ toJson (merge (dict "name" "talk" "use" "SelfPlay") $source) }}
      - {{ toJson (merge (dict "name" "dev" "use" "Evaluation") $source) }}
  storage: {{ toJson $storage }}
  {{- with .Values.test.podTemplate }}
  podTemplate:
    - template: {{ toJson . }}
  {{- end }}
{{- end }}

{{/* The folder of the test's model and dialogues in the storage. */}}
{{- define "selfemo.testFolder" -}}
{{- $uri := "s3://selfemo-test/nowhere" }}
{{- with .Values.test.storage }}
{{- $uri = required "test.storage.uri is required if test.storage is set" .uri }}
{{- end }}
{{- printf "%s/helm-test/%s" (trimSuffix "/" $uri) .Release.Name }}
{{- end }}

{{/* The test's objects are created before it and deleted after it. The pod of a failed test stays. */}}
{{- define "selfemo.testHook" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
