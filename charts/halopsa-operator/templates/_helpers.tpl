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
- name: HALOPSA_WRITE_SETTLE_TIME
  value: {{ .Values.settle | quote }}
- name: HALOPSA_LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- with .Values.watchNamespace }}
- name: HALOPSA_NAMESPACE
  value: {{ . }}
{{- end }}
{{- end }}

{{- define "halopsa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
