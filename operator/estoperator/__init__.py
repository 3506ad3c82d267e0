"""The operator: turns Kubernetes objects into EST calls, and EST answers into status. It never sees a CA key.

The straight path: handlers.on_request → object_reader.read_request → decide.next_step → issuing.run_step → EstClient.full_cmc →
conditions.issued → cluster.apply_status. `decide`, `vouching`, `conditions`, `object_reader`, `issuer_state` and `chain` are pure.
"""
