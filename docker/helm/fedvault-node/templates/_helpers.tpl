{{- define "node.labels" -}}
app.kubernetes.io/name: fedvault-node
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
{{- define "node.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 60
imagePullSecrets: {{- toYaml .Values.image.pullSecrets | nindent 2 }}
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
  exec: {command: [fedvault-node, status, --check, --config, /node/settings/node.toml]}
  periodSeconds: 30
  timeoutSeconds: 20
{{- end }}
{{- define "node.folders" -}}
# A new volume is root's, and open to a group. What a process uses is a folder of its own in it: made here, once
- name: folders
  image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag }}"
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [sh, -ec, {{ .script | quote }}]
  securityContext: {{- include "node.security" .root | nindent 4 }}
  resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {memory: 256Mi}}
  volumeMounts:
    {{- range .volumes }}
    - {name: {{ . }}, mountPath: /volumes/{{ . }}}
    {{- end }}
{{- end }}
{{- define "node.claim" -}}
accessModes: [{{ .mode }}]
{{- with .className }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end }}
