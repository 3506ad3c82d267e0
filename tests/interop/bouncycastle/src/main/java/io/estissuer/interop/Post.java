package io.estissuer.interop;

import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** POST for what Bouncy Castle's EST client does not do itself: encrypted keys, Full PKI Requests. Its TLS, Java's HTTP. */
record Post(int status, String contentType, byte[] body) {
  record Part(String contentType, byte[] der) {}

  static Post send(Options options, String operation, String contentType, byte[] der) throws Exception {
    HttpsURLConnection connection =
        (HttpsURLConnection)
            URI.create("https://" + options.get("server") + "/.well-known/est/" + options.get("label") + "/" + operation)
                .toURL()
                .openConnection();
    connection.setSSLSocketFactory(context(options).getSocketFactory());
    connection.setRequestMethod("POST");
    connection.setDoOutput(true);
    connection.setRequestProperty("Content-Type", contentType);
    if (options.has("user")) {
      String login = options.get("user") + ":" + options.get("password");
      connection.setRequestProperty(
          "Authorization", "Basic " + Base64.getEncoder().encodeToString(login.getBytes(StandardCharsets.UTF_8)));
    }
    connection.getOutputStream().write(Base64.getMimeEncoder().encode(der));
    int status = connection.getResponseCode();
    try (InputStream stream = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
      return new Post(status, connection.getContentType(), stream == null ? new byte[0] : stream.readAllBytes());
    }
  }

  byte[] der() {
    return Base64.getMimeDecoder().decode(body);
  }

  /** The parts of a multipart/mixed body. */
  List<Part> parts() throws IOException {
    String boundary = "--" + contentType.replaceAll(".*boundary=\"?([^\";]+)\"?.*", "$1");
    List<Part> parts = new ArrayList<>();
    for (String part : new String(body, StandardCharsets.US_ASCII).split(java.util.regex.Pattern.quote(boundary))) {
      String[] headAndBody = part.strip().split("\r?\n\r?\n", 2);
      if (headAndBody.length == 2) {
        String type = headAndBody[0].replaceAll("(?is).*content-type: *([^\r\n]+).*", "$1");
        parts.add(new Part(type, Base64.getMimeDecoder().decode(headAndBody[1])));
      }
    }
    return parts;
  }

  private static SSLContext context(Options options) throws Exception {
    KeyStore anchors = KeyStore.getInstance("PKCS12");
    anchors.load(null, null);
    for (X509Certificate certificate : Identity.certificates(options.path("anchors"))) {
      anchors.setCertificateEntry(certificate.getSerialNumber().toString(), certificate);
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX", "BCJSSE");
    trust.init(anchors);
    KeyManager[] keys = options.has("identity") ? Identity.load(options.path("identity")).keyManagers() : null;
    SSLContext context = SSLContext.getInstance(options.get("tls", "TLSv1.3"), "BCJSSE");
    context.init(keys, trust.getTrustManagers(), null);
    return context;
  }
}
