"""The processes of `consisid gateway` and `consisid worker`: their parts, made from settings.

gateway     listens, answers, ends
worker      the worker of one server
announcing  the body of a webhook
logs        lines on standard error
"""
