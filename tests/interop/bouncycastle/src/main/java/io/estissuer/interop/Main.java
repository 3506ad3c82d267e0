package io.estissuer.interop;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.security.Security;
import org.bouncycastle.est.ESTException;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.jsse.provider.BouncyCastleJsseProvider;

/**
 * EST operations as Bouncy Castle does them. Each line of standard input is one: COMMAND and its options, --NAME VALUE, between tabs.
 *
 * <p>Answers with lines of {@code name=value}, octets in base64, and an empty line. A refusal of the server is an answer, with its
 * {@code status=}; {@code exception=} is there when the client failed.
 */
public final class Main {
  private Main() {}

  public static void main(String[] arguments) throws IOException {
    Security.addProvider(new BouncyCastleProvider());
    Security.addProvider(new BouncyCastleJsseProvider());
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = commands.readLine(); line != null; line = commands.readLine()) {
      Output output = new Output();
      try {
        run(new Options(line.split("\t")), output);
      } catch (ESTException refused) {
        if (refused.getStatusCode() == 0) {
          output.put("exception", trace(refused));
        } else {
          output.put("status", refused.getStatusCode());
          output.put("message", refused.getMessage());
        }
      } catch (Exception failure) {
        output.put("exception", trace(failure));
      }
      output.print();
      System.out.println();
    }
  }

  private static void run(Options options, Output output) throws Exception {
    switch (options.command()) {
      case "cacerts" -> Enrolment.caCerts(options, output);
      case "enroll" -> Enrolment.enroll(options, output);
      case "csrattrs" -> Attributes.attributes(options, output);
      case "fullcmc" -> FullCmc.enroll(options, output);
      case "serverkeygen" -> KeyGeneration.plain(options, output);
      case "serverkeygen-encrypted" -> KeyGeneration.encrypted(options, output);
      default -> throw new IllegalArgumentException("no such command: " + options.command());
    }
  }

  private static String trace(Exception failure) {
    StringWriter text = new StringWriter();
    failure.printStackTrace(new PrintWriter(text));
    return text.toString();
  }
}
