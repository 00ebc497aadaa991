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

{{/* The template of the test's pod: the entries of `jobs.podTemplate` for all stages, and
`test.podTemplate` above them, merged as the operator merges them. */}}
{{- define "selfemo.testPod" -}}
{{- $keys := dict "env" "name" "volumes" "name" "imagePullSecrets" "name" "volumeMounts" "mountPath" }}
{{- $pod := dict }}
{{- $templates := list }}
{{- range .Values.jobs.podTemplate }}
{{- if not .stages }}
{{- $templates = append $templates .template }}
{{- end }}
{{- end }}
{{- range append $templates .Values.test.podTemplate }}
{{- range $name, $value := . }}
{{- if has $name (list "nodeSelector" "resources") }}
{{- $_ := set $pod $name (mergeOverwrite dict (get $pod $name | default dict | deepCopy) (deepCopy $value)) }}
{{- else if kindIs "slice" $value }}
{{- $key := get $keys $name }}
{{- $kept := list }}
{{- range $before := get $pod $name | default list }}
{{- $replaced := false }}
{{- range $value }}
{{- if and $key (eq (get . $key) (get $before $key)) }}
{{- $replaced = true }}
{{- end }}
{{- end }}
{{- if not $replaced }}
{{- $kept = append $kept $before }}
{{- end }}
{{- end }}
{{- $_ := set $pod $name (concat $kept $value) }}
{{- else }}
{{- $_ := set $pod $name $value }}
{{- end }}
{{- end }}
{{- end }}
{{- /* the pod has variables and volumes of its own, and takes only volumes that it mounts */}}
{{- $own := list "TEST_STORAGE" "TEST_FOLDER" "HOME" }}
{{- if dig "credentialsSecretRef" "" .Values.test.storage }}
{{- $own = concat $own (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN") }}
{{- end }}
{{- $env := list }}
{{- range $pod.env }}
{{- if not (has .name $own) }}
{{- $env = append $env . }}
{{- end }}
{{- end }}
{{- $mounts := list }}
{{- $mounted := list }}
{{- range $pod.volumeMounts }}
{{- if not (has .mountPath (list "/tmp" "/test")) }}
{{- $mounts = append $mounts . }}
{{- $mounted = append $mounted .name }}
{{- end }}
{{- end }}
{{- $volumes := list }}
{{- range $pod.volumes }}
{{- if and (has .name $mounted) (not (has .name (list "tmp" "test" "token"))) }}
{{- $volumes = append $volumes . }}
{{- end }}
{{- end }}
{{- /* the requests of stage pods, where nothing is said about a resource */}}
{{- $resources := $pod.resources | default dict }}
{{- $requests := $resources.requests | default dict }}
{{- range $name, $value := dict "cpu" "250m" "memory" "1Gi" }}
{{- if not (or (hasKey $requests $name) (hasKey ($resources.limits | default dict) $name)) }}
{{- $_ := set $requests $name $value }}
{{- end }}
{{- end }}
{{- $_ := set $resources "requests" $requests }}
{{- $changed := dict "env" $env "volumeMounts" $mounts "volumes" $volumes "resources" $resources }}
{{- include "selfemo.render" (list $ (merge $changed $pod)) }}
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
