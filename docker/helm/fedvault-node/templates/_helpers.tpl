{{- define "node.labels" -}}
app.kubernetes.io/name: fedvault-node
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
{{- define "node.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 60
nodeSelector: {{- toYaml .Values.nodeSelector | nindent 2 }}
tolerations: {{- toYaml .Values.tolerations | nindent 2 }}
{{- end }}
{{- define "node.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
{{- define "node.probe" -}}
# that the socket is there says nothing: a vault that was killed leaves it behind
readinessProbe:
  exec: {command: [fedvault-node, status, --check, --config, /node/node.toml]}
  periodSeconds: 30
  timeoutSeconds: 20
{{- end }}
{{- define "node.claim" -}}
accessModes: [{{ .mode }}]
{{- with .className }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end }}
