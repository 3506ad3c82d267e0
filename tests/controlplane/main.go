// controlplane is etcd, kube-apiserver and kubectl in one binary, chosen by the name it is started under. The integration
// tests run against it; it is built from Go modules alone, so that `go build` is all a machine needs. One binary instead of
// three, because the three share nearly all of their packages and linking is the slow part.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kubectl":
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	default:
		fmt.Fprintf(os.Stderr, "controlplane: start it as etcd, kube-apiserver or kubectl, not as %s\n", name)
		os.Exit(2)
	}
}
