{{- /* The settings of the two programs, as environment variables; docs/configuration.md describes each. */}}

{{- define "est-issuer.server.env" -}}
{{- $service := include "est-issuer.fullname" . }}
{{- $names := list $service (printf "%s.%s" $service .Release.Namespace) (include "est-issuer.serviceHost" .) (printf "%s.%s" (include "est-issuer.serviceHost" .) .Values.clusterDomain) }}
{{- $operator := printf "%s/%s" .Release.Namespace (include "est-issuer.operator.serviceAccount" .) }}
- {name: EST_KUBERNETES, value: "true"}
- {name: EST_RELEASE, value: {{ $service | quote }}}
- name: EST_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- {name: EST_LISTEN, value: "{{ .Values.listenAddress }}:8443"}
- {name: EST_METRICS_LISTEN, value: "{{ .Values.listenAddress }}:8080"}
- {name: EST_PUBLIC_URL, value: {{ .Values.server.publicUrl | default (include "est-issuer.url" .) | quote }}}
{{- if .Values.server.tls.secretName }}
- {name: EST_SERVING_SECRET, value: {{ .Values.server.tls.secretName | quote }}}
{{- else }}
- {name: EST_SERVER_NAME, value: {{ concat $names .Values.server.tls.names | join "," | quote }}}
{{- end }}
{{- with .Values.trust.namespaces }}
- {name: EST_TRUST_NAMESPACES, value: {{ without . $.Release.Namespace | join "," | quote }}}
{{- end }}
- {name: EST_RA_SERVICE_ACCOUNTS, value: {{ prepend .Values.ra.serviceAccounts $operator | join "," | quote }}}
{{- with .Values.labels }}
{{- $pairs := list }}
{{- range $label, $issuer := . }}{{ $pairs = append $pairs (printf "%s=%s" $label $issuer) }}{{ end }}
- {name: EST_LABELS, value: {{ $pairs | join "," | quote }}}
{{- end }}
{{- with .Values.defaultIssuer }}
- {name: EST_DEFAULT_ISSUER, value: {{ . | quote }}}
{{- end }}
{{- if .Values.ledger.urlSecret.name }}
- name: EST_LEDGER
  valueFrom: {secretKeyRef: {name: {{ .Values.ledger.urlSecret.name | quote }}, key: {{ .Values.ledger.urlSecret.key | quote }}}}
{{- end }}
{{- if not (kindIs "invalid" .Values.server.throttleSources) }}
- {name: EST_THROTTLE_SOURCES, value: {{ .Values.server.throttleSources | quote }}}
{{- else if and (ne .Values.server.service.type "ClusterIP") (ne .Values.server.service.externalTrafficPolicy "Local") }}
{{- /* Every client from outside has a node's address then: one that guesses would shut out all. */}}
- {name: EST_THROTTLE_SOURCES, value: "false"}
{{- end }}
{{- if or .Values.server.autoscaling.enabled (gt (int .Values.server.replicas) 1) }}
{{- /* Until the other replicas get all connections. */}}
- {name: EST_DRAIN_DELAY, value: 5s}
{{- end }}
{{- if not .Values.approval.objects }}
- {name: EST_APPROVAL_OBJECTS, value: "false"}
{{- end }}
- {name: EST_APPROVAL_RETENTION, value: {{ .Values.approval.retention | quote }}}
- {name: EST_RETRY_WINDOW, value: {{ .Values.retryWindow | quote }}}
- {name: EST_WORKERS, value: {{ .Values.server.workers | quote }}}
- {name: EST_LOG_FORMAT, value: json}
- {name: EST_LOG_LEVEL, value: {{ .Values.server.logLevel }}}
{{- with .Values.server.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "est-issuer.operator.env" -}}
{{- $doors := list }}
{{- if .Values.doors.estIssuer }}{{ $doors = append $doors "est-issuer.io" }}{{ end }}
{{- if .Values.doors.certManager }}{{ $doors = append $doors "cert-manager.io" }}{{ end }}
{{- if .Values.doors.signingRequests }}{{ $doors = append $doors "certificatesigningrequests" }}{{ end }}
{{- if .Values.doors.podCertificates }}{{ $doors = append $doors "podcertificaterequests" }}{{ end }}
- {name: EST_OPERATOR_SERVER_URL, value: {{ include "est-issuer.url" . }}}
- {name: EST_OPERATOR_SERVER_ANCHORS_FILE, value: /etc/est-issuer/serving-ca/ca.crt}
- {name: EST_OPERATOR_TOKEN_FILE, value: /var/run/secrets/est-issuer/token}
- name: EST_OPERATOR_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: EST_OPERATOR_IDENTITY
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- {name: EST_OPERATOR_LEASE_NAME, value: {{ include "est-issuer.operator.name" . }}}
- {name: EST_OPERATOR_DOORS, value: {{ $doors | join "," | quote }}}
- {name: EST_OPERATOR_CLUSTER_TRUST_BUNDLES, value: {{ .Values.trust.clusterTrustBundles.enabled | quote }}}
- {name: EST_OPERATOR_TRUST_CONFIG_MAPS, value: {{ .Values.trust.configMaps.enabled | quote }}}
{{- if .Values.doors.certManager }}
- {name: EST_OPERATOR_CERT_MANAGER_WEBHOOK, value: {{ .Values.certManager.webhookName | quote }}}
{{- end }}
{{- if .Values.approval.admissionPolicy }}
- {name: EST_OPERATOR_ADMISSION_POLICY, value: {{ include "est-issuer.fullname" . }}-certificaterequests}
{{- end }}
- {name: EST_OPERATOR_HTTP_HOST, value: {{ trimAll "[]" .Values.listenAddress | quote }}}
- {name: EST_OPERATOR_LOG_FORMAT, value: json}
- {name: EST_OPERATOR_LOG_LEVEL, value: {{ upper .Values.operator.logLevel }}}
{{- with .Values.operator.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
