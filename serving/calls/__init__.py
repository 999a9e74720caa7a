"""What a call goes through between gRPC and the method of a service."""
