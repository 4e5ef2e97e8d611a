{{- define "gvDetails" -}}
{{- $types := .Types -}}
{{- $first := list "TrustedIssuer" "TrustedIssuerSpec" "ClusterTrustedIssuer" "ClusterTrustedIssuerSpec" "IssuerSpec" "IssuerStatus" }}
## The kinds

Group and version are `{{ .GroupVersionString }}`.
{{ range $first }}{{ template "type" dict "type" (index $types .) "shared" (hasSuffix "TrustedIssuerSpec" . | ternary (index $types "IssuerSpec") nil) }}{{ end }}
## Their parts
{{ range .SortedTypes }}{{ if not (has .Name $first) }}{{ template "type" dict "type" . "shared" nil }}{{ end }}{{ end }}
{{- end -}}
