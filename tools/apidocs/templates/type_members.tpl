{{- define "type_members" -}}
- **`{{ .Name }}`** ({{ markdownRenderType .Type }}
{{- if index .Markers "required" }}, required{{ end }}
{{- if .Default }}, default `{{ .Default }}`{{ end }}).
{{- if eq .Name "metadata" }} See Kubernetes' own documentation.
{{- else }} {{ template "text" .Doc }}{{ end }}
{{- template "limits" . }}
{{- range index .Markers "kubebuilder:validation:XValidation" }}
  - “{{ template "text" .Message }}”
{{- end }}
{{- end -}}

{{- /* A comment or a message, on one line; < and * mean nothing in it. */ -}}
{{- define "text" }}{{ regexReplaceAll "([<*])" (. | trim | replace "\n" " ") "\\${1}" }}{{ end -}}

{{- /* What the schema demands besides; 0 and 1 as the least go without saying. */ -}}
{{- define "limits" -}}
{{- $words := dict "MinLength" "at least %s characters" "MaxLength" "at most %s characters"
  "MinItems" "at least %s entries" "MaxItems" "at most %s entries"
  "MinProperties" "at least %s entries" "MaxProperties" "at most %s entries"
  "items:MinLength" "each at least %s characters" "items:MaxLength" "each at most %s characters"
  "Minimum" "at least %s" "Maximum" "at most %s" -}}
{{- $limits := list -}}
{{- range .Validation -}}
{{- $name := splitList ": " . | first -}}
{{- $value := trimPrefix (printf "%s: " $name) . -}}
{{- if and (hasKey $words $name) (not (and (contains "at least" (get $words $name)) (has $value (list "0" "1")))) -}}
{{- $limits = append $limits (printf (get $words $name) $value) -}}
{{- end -}}
{{- end -}}
{{- with $limits }} ({{ . | sortAlpha | join ", " }}){{ end -}}
{{- end -}}
