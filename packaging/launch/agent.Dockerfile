# An agent's image: your own image plus the wrapper, which is one static file.
FROM python:3.13-slim
COPY --from=machineid-sidecar /usr/bin/machineid-run /usr/bin/machineid-run
USER 65533:65532
ENTRYPOINT ["/usr/bin/machineid-run", "--name", "agent", "--wait=1m", "--"]
CMD ["python3", "-c", "import time\nwhile True: time.sleep(1)"]
