"""The door over gRPC: KServe's service and gRPC's own health check, read and answered as bytes within bounds."""
