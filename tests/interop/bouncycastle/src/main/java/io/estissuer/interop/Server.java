package io.estissuer.interop;

import java.io.IOException;
import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.HashSet;
import java.util.Set;
import javax.net.ssl.SSLSocket;
import org.bouncycastle.est.ESTAuth;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.jcajce.ChannelBindingProvider;
import org.bouncycastle.est.jcajce.JcaHttpAuthBuilder;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseDefaultHostnameAuthorizer;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jsse.BCSSLSocket;

/** How Bouncy Castle reaches the server: --server HOST:PORT, --label, --anchors FILE, --tls VERSION, --identity FOLDER. */
final class Server {
  private Server() {}

  static ESTService service(Options options) throws IOException, GeneralSecurityException {
    return builder(options).build();
  }

  static JsseESTServiceBuilder builder(Options options) throws IOException, GeneralSecurityException {
    Set<TrustAnchor> anchors = new HashSet<>();
    for (X509Certificate certificate : Identity.certificates(options.path("anchors"))) {
      anchors.add(new TrustAnchor(certificate, null));
    }
    JsseESTServiceBuilder builder =
        new JsseESTServiceBuilder(options.get("server"), JcaJceUtils.getCertPathTrustManager(anchors, null));
    builder.withProvider("BCJSSE");
    builder.withTLSVersion(options.get("tls", "TLSv1.3"));
    builder.withTimeout(30_000);
    builder.withHostNameAuthorizer(new JsseDefaultHostnameAuthorizer(Set.of()));
    builder.withChannelBindingProvider(new TlsUnique());
    if (options.has("label")) {
      builder.withLabel(options.get("label"));
    }
    if (options.has("identity")) {
      builder.withKeyManagers(Identity.load(options.path("identity")).keyManagers());
    }
    return builder;
  }

  /** Basic or Digest, as the server asks; null without --user. */
  static ESTAuth credentials(Options options) throws Exception {
    if (!options.has("user")) {
      return null;
    }
    return new JcaHttpAuthBuilder(options.get("user"), options.get("password").toCharArray())
        .setNonceGenerator(new SecureRandom())
        .setProvider("BC")
        .build();
  }

  /**
   * tls-unique, which exists on TLS 1.2 only (RFC 9266 section 1). Bouncy Castle has tls-exporter too, but lets nobody ask for it once
   * the handshake is over, and its EST client asks later.
   */
  private static final class TlsUnique implements ChannelBindingProvider {
    @Override
    public boolean canAccessChannelBinding(Socket socket) {
      return socket instanceof BCSSLSocket && ((SSLSocket) socket).getSession().getProtocol().equals("TLSv1.2");
    }

    @Override
    public byte[] getChannelBinding(Socket socket, String binding) {
      return ((BCSSLSocket) socket).getConnection().getChannelBinding(binding);
    }
  }
}
