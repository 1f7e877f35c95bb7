{{- define "halopsa.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "halopsa.selector" -}}
app.kubernetes.io/name: halopsa-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "halopsa.labels" -}}
{{ include "halopsa.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "halopsa.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "halopsa.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: HALOPSA_SERVICE
  value: {{ include "halopsa.name" . }}
- name: HALOPSA_LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- with .Values.watchNamespaces }}
- name: HALOPSA_NAMESPACE
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}

{{- define "halopsa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* The rights of a process in the namespaces it watches: (list ROOT PROCESS). */ -}}
{{- define "halopsa.binding" -}}
{{- $root := index . 0 }}{{ $name := printf "%s-%s" (include "halopsa.name" $root) (index . 1) }}
{{- range $root.Values.watchNamespaces | default (list "") }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ if . }}RoleBinding{{ else }}ClusterRoleBinding{{ end }}
metadata:
  name: {{ $name }}
  {{- with . }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "halopsa.labels" $root | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects:
  - {kind: ServiceAccount, name: {{ $name }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}
{{- end }}

{{- /* A process as the apiserver sees it, in CEL: (list ROOT PROCESS). */ -}}
{{- define "halopsa.user" -}}
{{- $root := index . 0 -}}
'system:serviceaccount:{{ $root.Release.Namespace }}:{{ include "halopsa.name" $root }}-{{ index . 1 }}'
{{- end }}

{{- /* CEL's list of strings. */ -}}
{{- define "halopsa.celList" -}}
[{{ range $index, $item := . }}{{ if $index }}, {{ end }}{{ $item | quote }}{{ end }}]
{{- end }}
