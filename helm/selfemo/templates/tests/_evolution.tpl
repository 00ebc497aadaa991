{{/* The tiny evolution of `helm test`. Without storage it is only validated by the API server. */}}
{{- define "selfemo.testEvolution" -}}
{{- $storage := .Values.test.storage | default (dict "uri" "s3://selfemo-test/nowhere") }}
{{- $folder := include "selfemo.testFolder" . }}
{{- $source := dict "name" "talk" "uri" (printf "%s/dialogues.jsonl" $folder) "format" "JSONL" -}}
apiVersion: selfemo.dev/v1alpha1
kind: EmotionEvolution
metadata:
  # the API allows at most 36 characters, and the first must be a letter
  name: {{ printf "test-%s" (include "selfemo.fullname" . | trunc 31 | trimSuffix "-") }}
  namespace: {{ include "selfemo.testNamespace" . }}
spec:
  model:
    uri: {{ $folder }}/model
    prompts: compact-v1
    maxPromptTokens: 256
  dataset:
    labels: [joy, anger, sadness, neutral]
    context: {past: 1}
    selfPlay: [{{ toJson $source }}]
    evaluation: [{{ toJson $source }}]
  storage: {{ toJson $storage }}
  selfPlay:
    engine: Transformers # works with and without a GPU
    dialogues: 8
    groupSize: 4
    maxTokens: {recognizer: 6, responder: 12}
  # All answers of such a small model are kept, and no collapse bound ends the run.
  flywheel:
    minReward: -2.0
    consistency: {min: 0, max: 1}
    maxShare: 1.0
  training:
    batchSize: 8
    microBatchSize: 8
    gpusPerNode: 0
    precision: Float32
    gradientCheckpointing: false
    deepspeed: {zeroStage: 0}
  evaluation: {bootstrap: 0}
  evolution:
    maxGenerations: 1
    collapse: {minEntropy: 0, maxDivergence: 1, maxZeroVariance: 1, minDiversity: 0}
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
