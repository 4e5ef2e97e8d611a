{{- /* A type. It has the fields of "shared", if there is one, which are listed there alone. */ -}}
{{- define "type" -}}
{{- $type := .type -}}
{{- $elsewhere := dict -}}
{{- with .shared }}{{ range .Members }}{{ $_ := set $elsewhere .Name true }}{{ end }}{{ end }}
### {{ $type.Name }}

{{ template "text" $type.Doc }}{{ template "limits" $type }}
{{ template "usedBy" $type }}
{{ template "rules" $type }}
{{ if .shared -}}
The fields of [{{ .shared.Name }}](#{{ lower .shared.Name }}){{ if gt (len $type.Members) (len .shared.Members) }}, and{{ else }}.{{ end }}
{{ end }}
{{- range $type.Members }}{{ if not (hasKey $elsewhere .Name) }}
{{ template "type_members" . }}{{ end }}{{ end }}
{{- range $type.EnumValues }}
- **`{{ .Name }}`**: {{ template "text" (regexReplaceAll "^\\w+ " .Doc "") }}{{ end }}
{{- if not (or $type.EnumValues $type.Members) }}
{{- with index $type.Markers "kubebuilder:validation:Enum" }}
One of {{ range $i, $v := index . 0 }}{{ if $i }}, {{ end }}`{{ $v }}`{{ end }}.{{ end }}{{ end }}
{{ end -}}

{{- define "usedBy" -}}
{{- $names := list }}{{ range .SortedReferences }}{{ $names = append $names .Name }}{{ end -}}
{{- if has "IssuerSpec" $names }}{{ $names = without $names "TrustedIssuerSpec" "ClusterTrustedIssuerSpec" }}{{ end -}}
{{- range $i, $name := $names }}{{ if $i }}, {{ else }}
Part of {{ end }}[{{ $name }}](#{{ lower $name }}){{ end }}{{ if $names }}.{{ end }}
{{- end -}}

{{- define "rules" -}}
{{- range index .Markers "kubebuilder:validation:ExactlyOneOf" }}
Exactly one of {{ range $i, $v := . }}{{ if $i }} and {{ end }}`{{ $v }}`{{ end }} is set.
{{ end }}
{{- range index .Markers "kubebuilder:validation:XValidation" }}
- “{{ template "text" .Message }}”
{{- end }}
{{- end -}}
