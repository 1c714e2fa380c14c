{{- define "server.init" -}}
test -e /var/lib/fedvault/server.toml || fedvault-server init --host "$HOST_NAME"{{ if .Values.metrics.enabled }} --metrics-listen 0.0.0.0{{ end }}
{{- end }}
