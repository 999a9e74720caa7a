"""The gRPC services: thin, each method says what it asks of whom."""
