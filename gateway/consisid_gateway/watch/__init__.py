"""What an operator sees of a gateway: metrics, health, spans. docs/gateway-data.md and docs/gateway.md name all of it.

meters     what is counted and measured, for Prometheus
stored     what the database tells of jobs, workers and webhooks
observing  counts the requests
health     whether it lives, and whether it can accept a job
traces     one trace from the request to the step
"""
