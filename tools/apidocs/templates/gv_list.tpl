{{- define "gvList" -}}
# API reference

<!-- Made by `make generate` from the comments in api/v1alpha1: change those. -->

What `kubectl explain` shows, on one page: each field with its default, its limits, and what the API server says when a value is
refused. [Reference](reference.md) has what is not in the objects: conditions, annotations, the ConfigMap, endpoints, metrics.
{{ range . }}{{ template "gvDetails" . }}{{ end }}
{{- end -}}
