// Walks a device sign-in in a real Chromium with the keyboard alone, and says what it saw; without an account it only looks
// at the page and follows each of its links with the keyboard.
//   node browser.mjs '{"url":…,"account":…|null,"scripts":true,"screenshots":"DIR"|null}'
// Prints one JSON line: the pages it stood on, and everything that should not have happened on the way.

import { chromium } from 'playwright-core';

const { url, account, scripts, screenshots } = JSON.parse(process.argv[2]);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
  ],
});
try {
  const context = await browser.newContext({ javaScriptEnabled: scripts, reducedMotion: 'reduce' });
  const page = await context.newPage();
  const pages = [];
  const complaints = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(`${message.text()} (${message.location().url})`));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => {
    const { protocol, hostname } = new URL(request.url());
    if (protocol !== 'data:' && hostname !== '127.0.0.1') complaints.push(`asked for ${request.url()}`);
  });

  const look = async (response, name) => {
    pages.push({
      url: page.url(),
      status: response?.status() ?? null,
      title: await page.title(),
      heading: await page.getByRole('heading', { level: 1 }).first().innerText(),
      text: await page.locator('body').innerText(),
      lang: await page.locator('html').getAttribute('lang'),
    });
    if (screenshots === null) return;
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: `${screenshots}/${name}-${colorScheme}.png`, fullPage: true });
    }
  };
  // Tabs until the element has the focus, as somebody without a mouse does.
  const reach = async (element) => {
    for (let presses = 0; presses < 30; presses += 1) {
      if ((await element.and(page.locator(':focus')).count()) > 0) return;
      await page.keyboard.press('Tab');
    }
    throw new Error(`${element} cannot be reached with the keyboard on ${page.url()}`);
  };
  const redirects = (status) => status >= 300 && status < 400;
  // Enter on what has the focus, and the page it leads to.
  const enter = async () => {
    const [response] = await Promise.all([
      page.waitForResponse((answer) => answer.request().isNavigationRequest() && !redirects(answer.status())),
      page.waitForNavigation({ waitUntil: 'load' }),
      page.keyboard.press('Enter'),
    ]);
    return response;
  };

  const signIn = async () => {
    await look(await page.goto(url), 'approve');
    await reach(page.locator('form[action$="/device"] button:not([formaction])').first());
    await look(await enter(), 'login');
    await reach(page.locator('input[name=login]'));
    await page.keyboard.type(account);
    await look(await enter(), 'done');
  };
  const lookAround = async () => {
    await look(await page.goto(url), 'page');
    const links = await page.locator('a').count();
    for (let link = 0; link < links; link += 1) {
      await page.goto(url);
      await reach(page.locator('a').nth(link));
      const response = await enter();
      pages.push({ url: page.url(), status: response.status(), title: '', heading: '', text: await page.locator('body').innerText(), lang: null });
    }
  };
  await (account === null ? lookAround() : signIn());
  console.log(JSON.stringify({ pages, complaints }));
} finally {
  await browser.close();
}
