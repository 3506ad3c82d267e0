// certmanager runs controllers of cert-manager as they are, outside the cluster, by the settings that cert-manager starts
// with: what a CertificateRequest takes with est-issuer is stated as a ratio to what cert-manager's own CA issuer takes.
// Its approver, without cert-manager's webhook, approves the requests for every issuer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
)

// cert-manager's defaults: internal/apis/config/controller/v1alpha1/defaults.go, which no other module may import. The
// rate and the burst hold only where the API server is without API Priority and Fairness.
const (
	apiQPS   = 20
	apiBurst = 50
	workers  = 5
)

func run(ctx context.Context, options controller.ContextOptions, names []string) error {
	factory, err := controller.NewContextFactory(ctx, options)
	if err != nil {
		return err
	}
	var controllers []controller.Interface
	for _, name := range names {
		construct, known := controller.Known()[name]
		if !known {
			return fmt.Errorf("no controller is named %s", name)
		}
		made, err := construct(factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		controllers = append(controllers, made)
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, made := range controllers {
		go func() { ended <- made.Run(workers, ctx) }()
	}
	var failures []error
	for range controllers { // when one ends, the others are to end too
		failures = append(failures, <-ended)
		cancel()
	}
	return errors.Join(failures...)
}

func main() {
	options := controller.ContextOptions{KubernetesAPIQPS: apiQPS, KubernetesAPIBurst: apiBurst}
	flag.StringVar(&options.Kubeconfig, "kubeconfig", "", "the cluster's")
	flag.StringVar(&options.Namespace, "namespace", "", "the one that they look after; the arguments are the controllers' names")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, options, flag.Args()); err != nil {
		log.Fatal(err)
	}
}
