{{- define "jtm.labels" -}}
app.kubernetes.io/part-of: jwks-trust-manager
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with get .Values "commonLabels" }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The metadata that every object has: (dict "root" $ "name" … "component" … "labels" … "annotations" … "clustered" true) */ -}}
{{- define "jtm.metadata" -}}
{{- $annotations := merge (dict) (get . "annotations" | default dict) (get .root.Values "commonAnnotations" | default dict) -}}
name: {{ .name }}
{{- if not (get . "clustered") }}
namespace: {{ .root.Release.Namespace | quote }}
{{- end }}
{{- $labels := dict -}}
{{- with get . "component" }}{{ $_ := set $labels "app.kubernetes.io/name" . }}{{ end }}
labels:
  {{- toYaml (merge $labels (get . "labels" | default dict) (include "jtm.labels" .root | fromYaml)) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* A file of config/ as an object, in our namespace and with our labels: (dict "root" $ "object" …) */ -}}
{{- define "jtm.adopt" -}}
{{- $metadata := .object.metadata -}}
{{- $_ := set $metadata "labels" (merge (include "jtm.labels" .root | fromYaml) (get $metadata "labels" | default dict)) -}}
{{- with get .root.Values "commonAnnotations" -}}
{{- $_ := set $metadata "annotations" (merge (dict) (get $metadata "annotations" | default dict) .) -}}
{{- end -}}
{{- if get $metadata "namespace" -}}
{{- $_ := set $metadata "namespace" .root.Release.Namespace -}}
{{- end -}}
{{ toYaml .object }}
{{- end }}

{{- define "jtm.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The Service's names, and those of the values: (dict "root" $ "namespace" …). As
in config/, arguments of a pod take the namespace from its environment. */ -}}
{{- define "jtm.dnsNames" -}}
{{- $name := printf "jwks-trust-manager.%s" .namespace -}}
{{ toYaml (concat (list (printf "%s.svc" $name) (printf "%s.svc.cluster.local" $name) $name) (get .root.Values.certificate "extraDNSNames" | default list)) }}
{{- end }}

{{- /* The Service's URL: (dict "root" $ "namespace" …) */ -}}
{{- define "jtm.serviceURL" -}}
{{- $port := int .root.Values.verifier.service.port -}}
https://jwks-trust-manager.{{ .namespace }}.svc{{ if ne $port 443 }}:{{ $port }}{{ end }}
{{- end }}

{{- /* Whether there is a value: 0 is one; the empty text is none, nor is null, with which
Helm takes a default away. */ -}}
{{- define "jtm.given" -}}
{{- if not (or (kindIs "invalid" .) (eq (toString .) "")) }}yes{{ end }}
{{- end }}

{{- /* Whether the controller keeps the certificate. */ -}}
{{- define "jtm.keepsCertificate" -}}
{{- if not (or .Values.certificate.certManager.enabled .Values.certificate.existing) }}yes{{ end }}
{{- end }}

{{- define "jtm.tracingArgs" -}}
{{- with .Values.tracing.endpoint }}
- --tracing-endpoint={{ . }}
{{- end }}
{{- end }}

{{- define "jtm.metricsArgs" -}}
- --metrics-bind-address=:{{ .Values.metrics.port }}
{{- if .Values.metrics.secure.enabled }}
- --metrics-secure
{{- if .Values.metrics.secure.certificateSecret }}
- --metrics-cert-dir=/etc/jwks-trust-manager/metrics-tls
{{- end }}
{{- end }}
{{- end }}

{{- /* What the pods of both components have in common: (dict "root" $ "component" "controller" "shard" "" "values" .Values.controller) */ -}}
{{- define "jtm.selector" -}}
app.kubernetes.io/name: jwks-trust-{{ .component }}
{{- with get . "shard" }}
jwks-trust.dev/shard: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "jtm.podMetadata" -}}
labels:
  {{- toYaml (merge (include "jtm.selector" . | fromYaml) (get .values "podLabels" | default dict) (get .root.Values "commonLabels" | default dict)) | nindent 2 }}
annotations:
  {{- toYaml (merge (dict) (get .values "podAnnotations" | default dict) (get .root.Values "commonAnnotations" | default dict) (dict "kubectl.kubernetes.io/default-container" "manager")) | nindent 2 }}
{{- end }}

{{- define "jtm.disruption" -}}
{{- with .values.podDisruptionBudget }}
{{- if .enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "jtm.metadata" (dict "root" $.root "name" $.name "component" (printf "jwks-trust-%s" $.component)) | nindent 2 }}
spec:
  {{- if not (include "jtm.given" (get . "minAvailable")) }}
  maxUnavailable: {{ .maxUnavailable }}
  {{- else }}
  minAvailable: {{ .minAvailable }}
  {{- end }}
  selector:
    matchLabels:
      {{- include "jtm.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "jtm.podSpec" -}}
serviceAccountName: jwks-trust-{{ .component }}
terminationGracePeriodSeconds: 40
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
topologySpreadConstraints:
  {{- with .values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "jtm.selector" . | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "jtm.container" -}}
image: {{ include "jtm.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
env:
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  - name: GOMEMLIMIT
    valueFrom:
      resourceFieldRef:
        resource: limits.memory
  {{- if and .root.Values.tracing.endpoint (include "jtm.given" (get .root.Values.tracing "samplingRatio")) }}
  - name: OTEL_TRACES_SAMPLER
    value: parentbased_traceidratio
  - name: OTEL_TRACES_SAMPLER_ARG
    value: {{ .root.Values.tracing.samplingRatio | quote }}
  {{- end }}
  {{- with .values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
livenessProbe:
  httpGet:
    path: /healthz
    port: probes
  periodSeconds: 20
readinessProbe:
  httpGet:
    path: /readyz
    port: probes
  periodSeconds: 5
resources:
  {{- toYaml .values.resources | nindent 2 }}
securityContext:
  {{- toYaml .root.Values.containerSecurityContext | nindent 2 }}
{{- end }}

{{- define "jtm.metricsVolume" -}}
{{- if and .Values.metrics.secure.enabled .Values.metrics.secure.certificateSecret }}
- name: metrics-tls
  secret:
    secretName: {{ .Values.metrics.secure.certificateSecret | quote }}
{{- end }}
{{- end }}

{{- define "jtm.metricsMount" -}}
{{- if and .Values.metrics.secure.enabled .Values.metrics.secure.certificateSecret }}
- name: metrics-tls
  mountPath: /etc/jwks-trust-manager/metrics-tls
  readOnly: true
{{- end }}
{{- end }}
