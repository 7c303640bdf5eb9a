{{- define "agent.labels" -}}
app.kubernetes.io/name: agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "agent.template" -}}
metadata:
  labels:
    {{- include "agent.labels" . | nindent 4 }}
    machineid.io/enforced: "true"
spec:
  terminationGracePeriodSeconds: {{ .Values.agent.terminationGracePeriod }}
  {{- if has .Values.kind (list "Job" "CronJob") }}
  restartPolicy: Never
  {{- end }}
  {{- if .Values.userNamespace }}
  hostUsers: false
  {{- end }}
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
  initContainers:
    - name: machineid-run
      image: {{ .Values.image }}
      command: ["cp", "/usr/bin/machineid-run", "/machineid/bin/machineid-run"]
      securityContext: {{- include "agent.locked" . | nindent 8 }}
      resources: {{- include "agent.small" . | nindent 8 }}
      volumeMounts:
        - {name: bin, mountPath: /machineid/bin}
    # A native sidecar: it starts before the agent, ends after it, and does not keep the pod alive.
    - name: machineid-sidecar
      image: {{ .Values.image }}
      restartPolicy: Always
      securityContext: {{- include "agent.locked" . | nindent 8 }}
      resources: {{- include "agent.small" . | nindent 8 }}
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        - name: WORKLOAD
          value: {{ printf "%s/%s" (lower .Values.kind) .Release.Name }}
      ports:
        - {name: metrics, containerPort: {{ .Values.metrics.port }}}
      # The agent's container starts when the daemon has its first decision, also a deny.
      startupProbe:
        exec: {command: ["/usr/bin/machineid-sidecar", "healthcheck", "--ready"]}
        periodSeconds: 1
        timeoutSeconds: 3
        failureThreshold: 1800
      livenessProbe:
        exec: {command: ["/usr/bin/machineid-sidecar", "healthcheck"]}
        periodSeconds: 10
        timeoutSeconds: 3
      volumeMounts:
        - {name: config, mountPath: /etc/machineid, readOnly: true}
        - {name: org-key, mountPath: /run/secrets/machineid, readOnly: true}
        - {name: socket, mountPath: /run/machineid}
        - {name: runs, mountPath: /run/machineid-sidecar}
        - {name: state, mountPath: /var/lib/machineid-sidecar}
  containers:
    - name: agent
      image: {{ .Values.agent.image }}
      {{- if has .Values.kind (list "Job" "CronJob") }}
      # A denied start ends with 77, and podFailurePolicy ends the job.
      command: ["/machineid/bin/machineid-run", "--name", "agent", "--"]
      {{- else }}
      # A stopped container is started again. There the wrapper waits until the device is allowed: the pod does not crash-loop.
      command: ["/machineid/bin/machineid-run", "--name", "agent", "--wait", "--"]
      {{- end }}
      args: {{- toYaml .Values.agent.command | nindent 8 }}
      {{- with .Values.agent.env }}
      env: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        runAsUser: {{ .Values.agent.user }}
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: ["ALL"]
      resources: {{- toYaml .Values.agent.resources | nindent 8 }}
      volumeMounts:
        - {name: bin, mountPath: /machineid/bin, readOnly: true}
        - {name: socket, mountPath: /run/machineid, readOnly: true}
  volumes:
    - name: bin
      emptyDir: {}
    - name: socket
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    - name: runs
      emptyDir: {medium: Memory, sizeLimit: 4Mi}
    - name: state
      emptyDir: {}
    - name: config
      configMap: {name: {{ .Release.Name }}-machineid}
    - name: org-key
      secret:
        secretName: {{ .Values.authority.orgKeySecret }}
        defaultMode: 0440
{{- end }}

{{- define "agent.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{- define "agent.small" -}}
requests: {cpu: 10m, memory: 16Mi}
limits: {memory: 64Mi}
{{- end }}

{{- define "agent.job" -}}
# A deny (77) ends the job at once; what could not find out (75) is tried again.
backoffLimit: 3
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes: {containerName: agent, operator: In, values: [77]}
template: {{- include "agent.template" . | nindent 2 }}
{{- end }}
