module est-issuer.io/bench/reference

go 1.26.0
