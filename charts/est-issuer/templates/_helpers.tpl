{{- define "est-issuer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" -}}
{{- end }}

{{- /* At most 45 characters: a Service named <fullname>-operator-metrics and a label <fullname>-server-<hash> hold 63. */}}
{{- define "est-issuer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else if contains (include "est-issuer.name" .) .Release.Name -}}
{{- .Release.Name | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "est-issuer.name" .) | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "est-issuer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "est-issuer.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: est-issuer
{{- end }}

{{- define "est-issuer.server.selector" -}}
app.kubernetes.io/name: {{ include "est-issuer.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end }}

{{- define "est-issuer.operator.selector" -}}
app.kubernetes.io/name: {{ include "est-issuer.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "est-issuer.test.selector" -}}
app.kubernetes.io/name: {{ include "est-issuer.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: test
{{- end }}

{{- define "est-issuer.server.name" -}}
{{ include "est-issuer.fullname" . }}-server
{{- end }}

{{- define "est-issuer.operator.name" -}}
{{ include "est-issuer.fullname" . }}-operator
{{- end }}

{{- define "est-issuer.server.serviceAccount" -}}
{{ .Values.server.serviceAccount.name | default (include "est-issuer.server.name" .) }}
{{- end }}

{{- define "est-issuer.operator.serviceAccount" -}}
{{ .Values.operator.serviceAccount.name | default (include "est-issuer.operator.name" .) }}
{{- end }}

{{- define "est-issuer.servingCA" -}}
{{ include "est-issuer.fullname" . }}-serving-ca
{{- end }}

{{- define "est-issuer.serviceHost" -}}
{{ include "est-issuer.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "est-issuer.url" -}}
https://{{ include "est-issuer.serviceHost" . }}{{ if ne (int .Values.server.service.port) 443 }}:{{ .Values.server.service.port }}{{ end }}
{{- end }}

{{- define "est-issuer.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end }}

{{- /* A quantity as a number, for the API server writes 1024Mi as 1Gi; empty for one that is none. */}}
{{- define "est-issuer.octets" -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" (toString .) }}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 }}
{{- with and $number (get $factors (trimPrefix $number (toString $))) }}
{{- printf "%.0f" (mulf (float64 $number) .) }}
{{- end }}
{{- end }}

{{- /* Pod Security "restricted". */}}
{{- define "est-issuer.podSecurityContext" -}}
runAsNonRoot: true
{{- range $name, $value := .Values.podSecurityContext }}
{{- if not (kindIs "invalid" $value) }}
{{ dict $name $value | toYaml }}
{{- end }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "est-issuer.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What automountServiceAccountToken would mount, said aloud: the token for the Kubernetes API, its CA and our namespace. */}}
{{- define "est-issuer.kubernetesToken" -}}
- serviceAccountToken: {path: token, expirationSeconds: 3600}
- configMap:
    name: kube-root-ca.crt
    items: [{key: ca.crt, path: ca.crt}]
- downwardAPI:
    items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end }}

{{- /* Where a Pod may go: given the values of one program, and the labels of its own Pods, which a spread constraint is about unless it
       says otherwise. */}}
{{- define "est-issuer.scheduling" -}}
{{- $selector := .selector | fromYaml }}
{{- with .values }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- (hasKey . "labelSelector" | ternary . (set (deepCopy .) "labelSelector" (dict "matchLabels" $selector))) | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- if not (kindIs "invalid" .hostUsers) }}
hostUsers: {{ .hostUsers }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What every program's Pod may reach: given the value networkPolicy. */}}
{{- define "est-issuer.dnsEgress" -}}
- ports:
    {{- range .dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{- define "est-issuer.egress" -}}
{{ include "est-issuer.dnsEgress" . }}
- ports:
    {{- range .apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .apiServerTo }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
